"""Importing what is slow to import after the page is up."""

import logging
import threading

_importing = threading.Lock()


def import_libraries() -> None:
    """Import what is slow, in one thread at a time: to a second one, a package that makes its names on demand, as
    diffusers does, can look as if it had none. Whatever works in a thread of its own calls this first."""
    with _importing:
        import sentence_transformers  # noqa: F401

        import d2nwg.adapter_scores
        import d2nwg.exploration.names_words
        import d2nwg.exploration.task_words
        import d2nwg.exploration.words
        import d2nwg.figures.explore
        import d2nwg.generate
        import d2nwg.interpolation.descriptions
        import d2nwg.interpolation.names
        import d2nwg.interpolation.path  # noqa: F401


def import_first() -> None:
    """Import what a page needs when it opens, by doing it once; it is called before there is a page. While `warm_up`
    imports in one thread, a handler that imports the same packages in another can fail (``_DeadlockError``) where their
    modules import each other, as those of narwhals do, which plotly and scikit-learn use."""
    from d2nwg.ui.generate.first import first_result
    from d2nwg.ui.interpolate.html import endpoint_strip
    from d2nwg.ui.interpolate.settings import DEFAULTS

    first_result().table()
    endpoint_strip(DEFAULTS["a"])


def warm_up() -> None:
    """Import what is slow and load the default encoder, bundle and text encoder, so that the first click does not wait
    for them."""
    try:
        import_libraries()
        from d2nwg.bundles import load_pipeline, resolve_bundle
        from d2nwg.encoders.images import DEFAULT_ENCODER, load_encoder

        load_encoder(DEFAULT_ENCODER)
        pipe = load_pipeline(resolve_bundle())
        if pipe.uses_names:
            pipe.names_on().prepare()
    except Exception:  # the page is up; whoever needs it sees the sentence then
        logging.getLogger("d2nwg.ui").exception("Warming up")
