"""The model card of a refined language model: its base, how it was made, what it was measured on."""

import json
import re

from d2nwg.utils.text import printable, shown

HUB_NAME = re.compile(r"[\w.\-]+/[\w.\-]+", re.ASCII)
LICENCE = re.compile(r"[\w.\-]{1,60}", re.ASCII)
METHOD = """Its weights are those of the base except for a few layers. For each of those, D2NWG (Soro et al.,
*Diffusion-based Neural Network Weights Generation*, ICLR 2025) learns the distribution of the layer's chunks with a VAE
and a diffusion model conditioned on the chunk index, samples candidates, and keeps one only if it is better on a
selection set, by a paired interval. The gain is measured on a report set that played no part in the selection."""
OF_A_ZOO = """Its weights are those of the base except for some matrices, which a zoo of LoRA fine-tunes of the base
changes. D2NWG (Soro et al., *Diffusion-based Neural Network Weights Generation*, ICLR 2025) learns the distribution of
each layer's changes with a diffusion model conditioned on the layer's index; the search begins with the fine-tunes'
average, samples candidates, and keeps one only if it is better on a selection set, by a paired interval. The gain is
measured on a report set that played no part in the selection."""


def model_card(name: str, base: str, config, report: dict) -> str:
    """The README of a folder.

    Args:
        name: of the refined model.
        base: the name of the model it was made from.
        config: the model's.
        report: what `d2nwg.llm` measured: ``words`` (sentences) come first, all of it follows as JSON.
    """
    head = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": "[d2nwg, weight-generation]"}
    if HUB_NAME.fullmatch(base):
        head["base_model"] = base
    if LICENCE.fullmatch(str(report.get("licence") or "")):  # a delta's facts come from a file
        head["license"] = report["licence"]
    words = report.get("words")
    said = "\n\n".join(shown(sentence, 2000) for sentence in (words if isinstance(words, list) else [words or ""]))
    measured = printable(json.dumps(report, indent=1, ensure_ascii=False, default=str))
    lines = "\n".join(f"{key}: {value}" for key, value in head.items())
    zoo = bool(report.get("zoo"))
    kind = type(config).__name__.removesuffix("Config")
    return f"""---
{lines}
---
# {name}

A {kind} language model, made from **{shown(base)}** {"and fine-tunes of it" if zoo else "without fine-tuning"}.

{OF_A_ZOO if zoo else METHOD}

{said}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained("{name}"), AutoTokenizer.from_pretrained("{name}")
```

## Everything that was chosen and measured

```json
{measured}
```
"""
