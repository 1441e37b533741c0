"""The Generate tab's words on whole networks. Whatever comes from a visitor is escaped here."""

from html import escape

from d2nwg.evaluation.network_report import NetworkReport
from d2nwg.ui.html import count, percent

COLUMNS = ["network", "right, %", "distance"]


def sentences(report: NetworkReport) -> tuple[str, str, str]:
    """The result in plain words: the answer, the baselines, and how the network was made."""
    right = report.query_accuracy
    others = report.baselines()
    best = max(others, key=others.__getitem__)
    gap = 100 * (right.network - others[best])
    stand = "level with" if abs(gap) < 0.05 else f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'}"
    drawn = ""
    if right.samples is not None:
        many = f"{count(report.num_samples, 'sample')} drawn by diffusion"
        drawn = f" {many} {'reach' if report.num_samples > 1 else 'reaches'} {percent(right.samples)} on average."
    far = ""
    if report.distance is not None:
        far = f" From the zoo's nearest network it is {report.distance:.1f} times as far as neighbours there are."
    colour = "grey" if report.channels == 1 else "coloured"
    return (
        f"The generated network is right on {percent(right.network)} of {count(report.num_query, 'image')} it never "
        "saw, without a step of training.",
        f"From the same {count(report.num_support, 'image')}, 50 gradient steps reach {percent(right.gradient_50)}, "
        f"the zoo's average trunk with a closed-form head {percent(right.average_closed_form)} and a random network "
        f"{percent(right.random)}: the generated network is {stand} the best of the baselines ({best}).{drawn}",
        f"The network {report.network} on {colour} images of {report.size} × {report.size} pixels, made in "
        f"{report.generating:.2f} s, a time for {count(right.steps, 'gradient step')}.{far} "
        f"{report.seconds.total:.1f} s in all, most of it for the baselines.",
    )


def result(report: NetworkReport) -> str:
    """The result card."""
    answer, baselines, made = map(escape, sentences(report))
    number = percent(report.query_accuracy.network)
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    notes = f'<ul class="notes">{notes}</ul>' if notes else ""
    data = f"{escape(report.data)} · {count(len(report.classes), 'class')} · {report.shots} images a class seen"
    return (
        f'<section class="result"><p class="about">{data}</p>'
        f'<p class="answer">{answer.replace(number, f"<b>{number}</b>", 1)}</p><p>{baselines}</p>'
        f'<p class="made">{made}</p>{notes}</section>'
    )
