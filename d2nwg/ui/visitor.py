"""Who a visitor is: the owner of what the token in their browser stands for, or somebody at this machine."""

import ipaddress
import secrets
from urllib.parse import urlsplit

import gradio as gr

from d2nwg.jobs.owner import STRANGER, Viewer, owner_of
from d2nwg.ui.access import ACCESS, on_a_space

STORED_AS = "d2nwg-visitor"  # the name of the token in the browser's storage
HEADER = "x-d2nwg-visitor"  # programs send the token so
# Whatever a proxy says about the one it asks for; a proxy on this machine has the address of this machine.
PROXIED = ("forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip")


def new_token() -> str:
    """A token that nobody can guess."""
    return secrets.token_urlsafe(32)


def visitor(request: gr.Request | None, token: object = None) -> Viewer:
    """Who asks, by the token of their browser (or in the header `HEADER`) and by where they are."""
    if request is None:
        return STRANGER
    return Viewer(owner_of(token) or owner_of(_headers(request).get(HEADER)), ACCESS.shared_jobs or at_home(request))


def at_home(request: gr.Request) -> bool:
    """Whether a request comes from a browser on this machine: from its own address to its own address, by no page of
    another site, and through no proxy. On a Space and behind ``--share`` nobody is."""
    if on_a_space() or ACCESS.tunnelled:
        return False
    headers, scope = _headers(request), getattr(getattr(request, "request", None), "scope", {})
    if scope.get("http_version") == "1.0":  # no browser speaks it, but nginx does, and may say nothing else of itself
        return False
    if any(name in PROXIED or name.startswith("x-forwarded") for name in headers):
        return False
    places = f"//{headers.get('host', '')}", headers.get("origin", "//localhost")
    return all(map(_is_loopback, (getattr(getattr(request, "client", None), "host", None), *map(_host, places))))


def _headers(request: gr.Request) -> dict[str, str]:
    return {str(name).lower(): value for name, value in getattr(request, "headers", {}).items()}


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
