"""D2NWG Studio in the browser: ``python app.py``. Also the entry of the Hugging Face Space."""

import argparse
import os
import signal
import sys

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is sent or fetched

from d2nwg.ui.access import ACCESS, open_to_visitors
from d2nwg.ui.app import build_app, launch_options
from d2nwg.ui.libraries import import_first, warm_up
from d2nwg.utils.errors import UserError

demo = build_app()


def on_a_desktop() -> bool:
    """Whether somebody sits in front of this machine, so that a browser can be opened for them."""
    if os.environ.get("SPACE_ID") or os.environ.get("SSH_CONNECTION"):
        return False
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def main() -> None:
    """Parse the options and serve until stopped."""
    parser = argparse.ArgumentParser(
        description="D2NWG Studio in the browser.", epilog="example: python app.py --port 7861"
    )
    parser.add_argument("--host", help="the address to listen on (127.0.0.1; 0.0.0.0 for the whole network)")
    parser.add_argument("--port", type=int, help="the port (the first free one from 7860)")
    parser.add_argument("--share", action="store_true", help="make a public link through gradio.live")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument(
        "--models",
        metavar="DIR",
        action="append",
        default=[],
        help="let visitors use the language models and zoos in this folder, and no others of this machine (repeatable)",
    )
    parser.add_argument(
        "--shared-jobs", action="store_true", help="let every visitor see and stop all jobs, not only their own"
    )
    args = parser.parse_args()
    try:
        open_to_visitors(args.models, args.shared_jobs, tunnelled=True)  # until it is known
    except UserError as mistake:
        parser.error(str(mistake))

    import_first()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stop by the system cleans up as Ctrl+C does
    try:
        demo.launch(
            server_name=args.host,
            server_port=args.port,
            share=args.share or None,
            inbrowser=on_a_desktop() and not args.no_browser,
            prevent_thread_lock=True,
            **launch_options(),
        )
    except OSError as reason:
        sys.exit(f"The app cannot listen there: {str(reason).split('.')[0]}.")
    ACCESS.tunnelled = bool(demo.share)
    try:
        warm_up()  # while the first visitor looks around
        demo.block_thread()
    except KeyboardInterrupt:
        demo.close()


if __name__ == "__main__":
    main()
