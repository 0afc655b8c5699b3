"""Write the encoder of a training checkpoint as a float16 safetensors file for ProtAlign.

    python scripts/language_model/export_weights.py run/checkpoint.safetensors \\
        --out protalign/encoders/data/protalign_t6_2M.safetensors \\
        --data "what it was trained on" --licence MIT

The keys are those of fair-esm's ESM2 without its language-model and contact heads. The file's stem
is the model's name; ProtAlign finds every protalign_*.safetensors in that folder.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the scripts' folder

from language_model.export import export
from language_model.optimisation import open_checkpoint


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", type=Path)
    add("--out", type=Path, required=True)
    add("--data", required=True, help="the training data, for the file's header")
    add("--licence", required=True, help="licence of the weights")
    options = parser.parse_args()
    network, facts = open_checkpoint(options.checkpoint)
    header = {"training_data": options.data, "licence": options.licence}
    header |= {"seed": str(facts["config"]["seed"]), "steps": str(facts["step"])}
    export(network, options.out, header)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
