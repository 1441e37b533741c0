"""What visitors do in several tabs."""


def open_settings(page, button: str, field: str) -> None:
    """Open an accordion and wait until the input `field` in it stands: gradio makes what is in one when it is first
    opened, and sets its values a moment later, over what was typed before that."""
    page.click(button)
    page.wait_for_function(
        "field => { const input = document.querySelector(field); return input && (input.value || input.placeholder); }",
        arg=field,
    )
    page.wait_for_timeout(500)


def download(page, button: str, folder):
    """Click what offers a file and save that in a folder, under the name it is offered by."""
    with page.expect_download() as waiting:
        page.click(button)
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path
