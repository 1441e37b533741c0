"""The words and pieces of HTML of the Language tab's second step. Whatever comes from a visitor or a model is escaped
here."""

from html import escape

from d2nwg.llm.architectures import TITLES
from d2nwg.llm.report import NAMES, ONE_MODEL
from d2nwg.llm.shots import shot_words
from d2nwg.ui.html import percent, title
from d2nwg.utils.text import number

ARMS = {**NAMES, "whole": "all layers", "noised_whole": "noise in all layers"}
BLOCKS = ("layer", "layers")  # types of what is more than a matrix
OTHERS = {  # what stands beside a refinement: of one model, and of a zoo
    False: "Noise, cut ranks and the VAE's reconstruction had no more tries and were chosen alike.",
    True: "The best fine-tune was chosen by the same questions; with noise it had as many tries. The average was not "
    "chosen.",
}


def refining_places() -> str:
    """What will stand where, before a model is refined."""
    steps = "M8 70" + "".join(f"h26v-{rise}" for rise in (0, 6, 0, 0, 9, 0, 5, 0, 0, 4)) + "h26"
    return f"""<div class="places">
<section class="place wide">{title("Is the refined model better?")}
<p>Press <b>Refine</b>. For one layer after another, candidates are sampled; one is kept only if it answers the
selection questions better. At the end the base, the refined model and what else could have been done with as many tries
answer questions that nothing was chosen by.</p>
<p>From a zoo of fine-tunes, where there is one, candidates are combinations of what they changed; <b>Sample</b> draws
one such model in seconds, which nothing has scored.</p>
<p>From this model alone: {escape(ONE_MODEL[0].lower() + ONE_MODEL[1:])}</p>
<svg viewBox="0 0 300 84" aria-hidden="true"><path d="{steps}" class="chosen"/></svg></section></div>"""


def so_far(base: tuple[int, int, int] | None, log: list[dict]) -> str:
    """What is known of a refinement before its report: how the unchanged model answers, and what was decided."""
    right, done, total = base or (0, 0, 0)
    if not done:
        return ""
    answered = f"{done:,} of {total:,}" if done < total else f"all {total:,}"
    kept = sum(line["accepted"] for line in log if line["arm"] in ("refined", "whole"))
    decided = f"{number(len(log), 'decision')} so far; {kept} of the refinement's own replaced weights." if log else ""
    return (
        f'<section class="result"><p class="answer">The base is right on {percent(right / done)} of {answered} '
        f"selection questions.</p><p>{decided or 'Nothing is refined yet.'}</p></section>"
    )


def zoo_words(name: str, base: float | None, checkpoints: list[dict], finished: bool) -> str:
    """How the fine-tunes of a zoo answer the questions that score them, as far as they are made; ``base`` is the
    unchanged model's share of right answers."""
    if base is None:
        return ""
    said, where = f"The unchanged model is right on {percent(base)}", "of the questions kept to score the fine-tunes"
    if checkpoints:
        best = percent(max(one["accuracy"] for one in checkpoints))
        so_far = "" if finished else " so far"
        said = f"The best of {number(len(checkpoints), 'checkpoint')}{so_far} is right on {best}, the base on"
        said = f"{said} {percent(base)}"
    rows = "".join(
        f"<tr><td>{escape(one['name'])}</td><td>{one['epoch']}</td><td>{percent(one['accuracy'])}</td></tr>"
        for one in checkpoints
    )
    head = "<tr><th>fine-tune</th><th>epoch</th><th>right</th></tr>"
    table = (
        '<div class="scroll" tabindex="0" role="group" aria-label="fine-tunes"><table class="log">'
        f"<thead>{head}</thead><tbody>{rows}</tbody></table></div>"
        if rows
        else ""
    )
    return (
        f'<section class="result"><p class="about">{escape(name)}</p><p class="answer">{said} {where}.</p>{table}'
        "<p>The best of several, picked by the questions that score it, looks better than it is: a refinement from the "
        "zoo reports on other questions.</p></section>"
    )


def reported_title(zoo: bool) -> str:
    """The heading of the figure with all arms."""
    return title(
        "Is it better where nothing was chosen?",
        f"Right on the report questions; bars are 95 % intervals. {OTHERS[zoo]}",
    )


def log_table(log: list[dict], criterion: str) -> str:
    """What was decided, matrix by matrix; `criterion` is that of the refinement, which the scores are in."""
    rows = []
    for line in log:
        best = line["candidates"][line["best"]]["score"]
        kept = "✓ kept" if line["accepted"] else "as it was"
        rows.append(
            f'<tr class="{"kept" if line["accepted"] else ""}"><td>{escape(_place(line))}</td>'
            f"<td>{_score(line['before'], criterion)}</td><td>{_score(best, criterion)}</td><td>{kept}</td>"
            f"<td>{line['seconds']:.1f} s</td></tr>"
        )
    head = "".join(f"<th>{name}</th>" for name in ("where", "before", "best candidate", "", "took"))
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="what was decided, layer by layer">'
        f'<table class="log"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _place(line: dict) -> str:
    """The arm and the place of a decision."""
    arm = ARMS.get(line["arm"], line["arm"])
    if line["type"] == "all":  # all layers at once
        return arm
    kind = "" if line["type"] in BLOCKS else f" · {TITLES.get(line['type'], line['type'])}"
    layer = f"{'layers from' if line['type'] == 'layers' else 'layer'} {line['layer']}"
    return f"{'' if line['arm'] == 'refined' else f'{arm} · '}{layer}{kind}"


def _score(value: float, criterion: str) -> str:
    """An accuracy in percent, or a mean log-probability as it is."""
    return percent(value) if criterion == "accuracy" else f"{value:.4f}"


def refined_words(made) -> str:
    """The result card: the answer, what to make of it, and how it was made."""
    report, rest = made.report, list(made.report["words"])
    first, others = rest[0], rest[1:]
    replaced = "decisions replaced weights" if "zoo" in report else "matrices replaced"
    facts = [
        f"{report['accepted']} of {report['tried']} {replaced}",
        f"seed {report['config']['seed']}",
        f"{report['config']['candidates']} candidates each",
        f"chosen by {report['select_questions']} questions, judged by {report['report_questions']} others",
    ]
    if "shots" in report:
        facts.append(f"the report questions with {shot_words(report, 'report')}")
    if "reconstruction" in report:
        rebuilt = report["reconstruction"]
        facts.append(f"{rebuilt['compression']['latents']:.1f} numbers a latent, relative error {rebuilt['error']:.2f}")
        facts.append(
            "with the matrices as the VAE gives them back, before refining: "
            f"{percent(rebuilt['selection_accuracy'])} of the selection questions instead of "
            f"{percent(rebuilt['base_selection_accuracy'])}"
        )
    paragraphs = "".join(f"<p>{escape(words)}</p>" for words in others)
    return (
        f'<section class="result"><p class="about">{escape(made.name)}</p><p class="answer">{escape(first)}</p>'
        f"{_rows(report.get('rows', {}))}{paragraphs}"
        f'<p class="made">{escape(" · ".join(facts))}.</p></section>'
    )


def _rows(rows: dict) -> str:
    """The base and all arms on the report questions."""
    cells = [
        f"<tr><td>{escape(NAMES[name])}</td><td>{percent(row['accuracy'])}</td><td>{_difference(row)}</td></tr>"
        for name, row in rows.items()
    ]
    head = "<tr><th></th><th>right</th><th>against the base</th></tr>"
    return f'<div class="scroll"><table>{head}{"".join(cells)}</table></div>' if cells else ""


def _difference(row: dict) -> str:
    if "versus_base" not in row:
        return ""
    low, high = row["versus_base"]["interval"]
    return f"{100 * row['versus_base']['difference']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
