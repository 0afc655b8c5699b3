"""The parts of `train_language_model.py`: data, network, checkpoints."""
