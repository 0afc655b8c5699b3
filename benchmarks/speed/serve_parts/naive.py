"""The server that one would write first: each request embeds its sequence, and searches, by itself.

python benchmarks/speed/serve_parts/naive.py vectors.parquet    # prints its address
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import Body, FastAPI

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository's folder

from protalign.core.protein import Chain, Protein
from protalign.encoders.recorded import RecordedEncoders
from protalign.heads.model import Model
from protalign.heads.shipped import shipped_model
from protalign.search.index import Index
from protalign.stores import read_vectors

app = FastAPI()
model = Model.load(shipped_model())
encoders = RecordedEncoders(model.encoders)
index = Index(read_vectors(sys.argv[1]))


@app.get("/ready")
def ready() -> str:
    return "ready"


@app.post("/v1/search")
def search(fasta: str = Body(), k: int = Body()) -> dict[str, Any]:
    name, _, sequence = fasta.strip().removeprefix(">").partition("\n")
    protein = Protein(name, "", (Chain.from_sequence(sequence),))
    vectors = model.pool("sequence", encoders.encode("sequence", [protein.sequences]))
    rows, cosines = index.search(vectors, k, against="structure")
    ids = index.vectors.ids
    hits = zip(rows[0].tolist(), cosines[0].tolist(), strict=True)
    return {"hits": [{"target": str(ids[row]), "cosine": cosine} for row, cosine in hits]}


if __name__ == "__main__":
    free = socket.socket()
    free.bind(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{free.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[free])
