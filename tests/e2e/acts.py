"""What visitors do in several tabs."""

PATIENCE = 400  # seconds, for whatever is waited for: a busy machine is slow


def open_settings(page, button: str, field: str) -> None:
    """Open an accordion and wait until the input `field` in it stands."""
    page.click(button)
    _stands(page, field)


def upload(page, field: str, files) -> None:
    """Give files to the file input `field`, once it stands."""
    page.wait_for_selector(field, state="attached")
    _stands(page, field)
    page.set_input_files(field, files)


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


def download(page, button: str, folder):
    """Click what offers a file and save that in a folder, under the name it is offered by."""
    with page.expect_download() as waiting:
        page.click(button)
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path
