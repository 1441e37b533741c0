"""What visitors do in several tabs."""

from contextlib import suppress
from pathlib import Path

from playwright.sync_api import TimeoutError

PATIENCE = 400  # seconds, for whatever is waited for: a busy machine is slow


def open_settings(page, button: str, field: str) -> None:
    """Open an accordion and wait until the input `field` in it stands."""
    page.click(button)
    _stands(page, field)


def upload(page, field: str, files, refused: bool = False) -> None:
    """Give files to the file input `field`, once it stands, and wait until they are there to stay; not so where they
    are to be `refused`, which may empty the box.

    What gradio sets late (see `_stands`) can come after the files, on a busy machine: then they are given again.
    """
    name = "".join(Path(files[0] if isinstance(files, list) else files).name.split())
    for _ in range(8):
        page.wait_for_selector(field, state="attached")
        _stands(page, field)
        page.set_input_files(field, files)
        if refused or page.evaluate(STAYS, [field.split()[0], name]):
            return
    raise AssertionError(f"{field} does not take {name}")


STAYS = """async ([box, name]) => {  // whether a box shows a file or a picture, and still does after a while
    for (let shown = 0, gone = 0, seen = false, frame = 0; frame < 3_000; frame++) {
        await new Promise(requestAnimationFrame);
        const found = document.querySelector(box);  // the page parts a name from its ending
        const there = found.querySelector("img") || found.textContent.replace(/\\s/g, "").includes(name);
        [shown, gone, seen] = there ? [shown + 1, 0, true] : [0, gone + 1, seen];
        if (shown > 60) return true;
        if (seen && gone > 120) return false;  // fewer: it is only drawn anew, and given again would be there twice
    }
    return false;
}"""


def _stands(page, field: str) -> None:
    """Wait for an input. Gradio makes what is in a tab or an accordion when that is first opened, and sets its values
    some frames later, over what was typed or uploaded before that."""
    page.evaluate(
        """async field => {
            for (let calm = 0, last, frame = 0; calm < 30; frame++) {  // frames without a change
                if (frame > 18_000) throw new Error(`${field} does not stand`);
                await new Promise(requestAnimationFrame);
                const input = document.querySelector(field);
                const now = input && (input.type === "file" ? input : input.value || input.placeholder);
                calm = now && now === last ? calm + 1 : 0;
                last = now;
            }
        }""",
        field,
    )


def pick(page, field: str, words: str = "", number: int = 0) -> None:
    """Pick from a dropdown an option that holds the words, or the one of a number.

    Gradio places a list when it opens it: where the page grows at that moment, it may lie outside of what is seen.
    """
    option = page.locator(f"{field} [role=option]").filter(has_text=words).nth(number)
    for _ in range(PATIENCE // 20):
        page.click(f"{field} input")
        with suppress(TimeoutError):
            return option.click(timeout=20_000)
        page.locator(f"{field} input").blur()
    raise AssertionError(f"{field} offers no {words or number}")


def photograph(page, field: str) -> None:
    """Take a picture with the camera, once it shows one."""
    page.click(f"{field} button[aria-label='Capture from camera']")
    page.click(f"{field} [title='grant webcam access'] button")
    page.wait_for_function("field => document.querySelector(`${field} video`)?.readyState === 4", arg=field)
    page.click(f"{field} button[aria-label='capture photo']")


def download(page, button: str, folder):
    """Click what offers a file and save that in a folder, under the name it is offered by."""
    with page.expect_download() as waiting:
        page.click(button)
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path
