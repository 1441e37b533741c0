"""The Train tab's words and pieces of HTML. Whatever comes from a visitor is escaped here."""

from collections.abc import Sequence
from html import escape

from d2nwg.jobs.owner import Viewer
from d2nwg.ui import html as views
from d2nwg.ui.train.service import Checkpoints, ImportedZoo, zoo_path
from d2nwg.utils.errors import UserError


def checkpoints(found: Checkpoints) -> str:
    """What an import of checkpoints would keep."""
    return (
        f'<p class="summary"><b>{views.count(found.number, "checkpoint")}</b>, '
        f"{views.count(len(found.architectures), 'architecture')}</p>{views.hint(found.account)}"
        f"{_notes(found.notes)}"
        + "".join(_architecture(number, group) for number, group in enumerate(found.architectures[:6], 1))
    )


def imported(made: ImportedZoo) -> str:
    """What an import of checkpoints has made: what of the files is in the zoo, and what is not, and why."""
    return f"{views.notice(f'{made.sentence} {made.account}', 'good')}{_notes(made.notes)}"


def _notes(sentences: Sequence[str]) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in sentences[:20])
    more = f"<li>and {len(sentences) - 20:,} more</li>" if len(sentences) > 20 else ""
    return f'<ul class="notes">{notes}{more}</ul>' if notes else ""


def _architecture(number: int, group: dict) -> str:
    rows = "".join(
        f'<tr><td title="{escape(row["layer"])}">{escape(row["layer"])}</td>'
        f"<td>{escape(', '.join('×'.join(map(str, shape)) or '1' for shape in row['shapes'].values()))}</td>"
        f"<td>{row['numbers']:,}</td><td>{row['chunks']}</td><td>{row['padding']:,}</td><td>{row['std']:.3g}</td></tr>"
        for row in group["layers"][:200]
    )
    difference = f'<p class="hint">{escape(group["difference"])}</p>' if group["difference"] else ""
    return (
        f'<details class="architecture"{" open" if number == 1 else ""}><summary>Architecture {number}: '
        f"{views.count(group['checkpoints'], 'checkpoint')} of {group['parameters']:,} numbers</summary>"
        f'{difference}<div class="scroll" tabindex="0" role="group" aria-label="layers"><table><thead><tr>'
        "<th>layer</th><th>shapes</th><th>numbers</th><th>chunks</th><th>padding</th><th>spread</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def describe_zoo(name: str | None, viewer: Viewer) -> str:
    """What is in a zoo, as HTML."""
    if not name:
        return views.hint("No zoo yet: build one from images above, or import checkpoints.")
    from d2nwg.weights.model_zoo import ModelZoo
    from d2nwg.weights.open import open_zoo

    try:
        zoo = open_zoo(zoo_path(name, viewer))
        summary = zoo.summary()
        if isinstance(zoo, ModelZoo):
            return _networks(summary)
        right = zoo.accuracies()
    except UserError as reason:
        return views.notice(str(reason))
    sets = ", ".join(f"{d['name']} ({d['classes']} classes)" for d in summary["datasets"])
    return (
        f'<div class="zoo"><p><b>{summary["records"]:,} {escape(summary["probe"])} heads</b> of '
        f"{summary['min_classes']} to {summary['max_classes']} classes, right on "
        f"{views.percent(float(right.mean()))} of held-out images.</p>"
        f'<p class="hint">{escape(sets)} · {summary["num_images"]:,} images · {escape(summary["encoder"])}</p></div>'
    )


def _networks(summary: dict) -> str:
    right = summary["accuracy"].get("mean")
    known = f", right on {views.percent(right)} by what their table says" if right else ""
    parts = "; ".join(
        f"{a['checkpoints']:,} of {a['parameters']:,} numbers like {escape(a['first'])}"
        + (", with BatchNorm" if a["batchnorm"] else "")
        for a in summary["architectures"][:6]
    )
    return (
        f'<div class="zoo"><p><b>{views.count(summary["checkpoints"], "network")}</b> of '
        f'{views.count(len(summary["architectures"]), "architecture")}{known}.</p><p class="hint">{parts} · tasks: '
        f"{escape(', '.join(list(summary['tasks'])[:6]))}</p></div>"
    )
