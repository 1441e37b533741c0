"""How far the matrices of a language model compress, and what that costs.

    python -m benchmarks.compression --questions select.jsonl --out compression.json

For each factor the VAE of `llm refine` is trained on the matrices that a preset refines. What it gives back is put into
the model, all matrices at once and each by itself, and the questions are scored. Compression is counted in numbers for
each latent, and for each latent and parameter of the decoder.
"""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from d2nwg.llm.architectures import stream
from d2nwg.llm.choice import units_of
from d2nwg.llm.chunks import Chunks, joined, save_matrices
from d2nwg.llm.groups import GroupedGenerator
from d2nwg.llm.models import load_language_model
from d2nwg.llm.presets import RefineConfig
from d2nwg.llm.questions import load_questions
from d2nwg.llm.refine import draw
from d2nwg.llm.score import Scorer
from d2nwg.utils.progress import TerminalProgress

FACTORS = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 9.0)


def curve(name: str, questions, config: RefineConfig, factors: Sequence[float], device: str | None) -> list[dict]:
    """A row for the model as it is, and one for each factor."""
    progress = TerminalProgress()
    model = load_language_model(name, device=device, fresh=True, progress=progress)
    units, _, groups = units_of(model, config, progress)
    parameters = dict(model.model.named_parameters())
    scorer = Scorer(model, questions)

    def put(tensors: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for key, value in tensors.items():
                parameters[key].copy_(value.to(model.stored_dtype))

    def scored() -> dict[str, float]:
        scores = scorer.score()
        return {"accuracy": scores.accuracy(), "log_probability": scores.confidence()}

    rows: list[dict] = [{"factor": None, "error": 0.0, "together": scored()}]
    print("as it is:", rows[0]["together"], flush=True)
    with tempfile.TemporaryDirectory() as work:
        kept = {part.name: parameters[part.name] for unit in units for part in unit.parts}
        chunks = Chunks(save_matrices(kept, Path(work) / "base.safetensors"), units, stream(model.model), config.chunk)
        for factor in factors:
            generator = GroupedGenerator(
                chunks, groups, replace(config, compression=factor, diffusion_steps=0), model.device
            )
            generator.fit(Path(work) / str(factor), progress)
            rebuilt = [generator.reconstruct(number) for number in range(len(units))]
            errors, alone = [], []
            for unit, tensors in zip(units, rebuilt, strict=True):
                exact = joined(unit, chunks.tensors(unit))
                errors.append(float((joined(unit, tensors) - exact).norm() / exact.norm()))
                scorer.advance(unit.layer)
                put(tensors)
                alone.append(scored())
                put(chunks.tensors(unit))
            scorer.close()
            for tensors in rebuilt:
                put(tensors)
            together = scored()
            for unit in units:
                put(chunks.tensors(unit))
            row = {"factor": factor, **generator.compression, "error": float(np.mean(errors)), "together": together}
            row["alone"] = {key: float(np.mean([one[key] for one in alone])) for key in together}
            rows.append({**row, "errors": {unit.name: error for unit, error in zip(units, errors, strict=True)}})
            print(_line(rows[-1]), flush=True)
    return rows


def _line(row: dict) -> str:
    values = [row["latents"], row["with_decoder"], row["error"]]
    values += [row[key][what] for key in ("together", "alone") for what in ("log_probability", "accuracy")]
    return " | ".join(f"{value:.3f}" for value in values)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the curve, print it, write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--questions", required=True, help="JSONL, built-in, or lm-eval:TASK")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--most", type=int, default=200, help="questions to score")
    parser.add_argument("--factors", type=float, nargs="+", default=FACTORS)
    parser.add_argument("--device")
    parser.add_argument("--smoke", action="store_true", help="two factors, two matrices, hardly trained")
    parser.add_argument("--out", required=True)
    args = parser.parse_args(argv)
    config, factors, most = RefineConfig.of(args.preset), args.factors, args.most
    if args.smoke:
        config, factors, most = replace(config, layers=2, vae_steps=2), (1.0, 2.0), 4
    machine = {"cpu": platform.processor(), "threads": torch.get_num_threads(), "cores": os.cpu_count()}
    questions = draw(load_questions(args.questions), most, 0)
    result = {"model": args.model, "preset": args.preset, "default": config.compression, "questions": len(questions)}
    print("numbers a latent | with decoder | error | together: log-probability, right | alone: log-probability, right")
    result |= {"machine": machine, "rows": curve(args.model, questions, config, factors, args.device)}
    Path(args.out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
