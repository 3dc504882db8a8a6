"""The part of a URL that may be shown: without passwords and tokens."""

import urllib.parse


def public(url: str) -> str:
    """Return a URL without user info and query, except the name of a file of MAST's download service.

    Parameters
    ----------
    url : str
        URL, or path of a folder, which stays as it is.

    Returns
    -------
    url : str
        ``https://user:secret@host/path?token=…`` as ``https://host/path``; ``…?uri=mast:PS1/…`` stays.
    """
    if "://" not in url:
        return url
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("#")[0].partition("?")
    host, slash, path = place.partition("/")
    shown = "&".join(part for part in query.split("&") if part.startswith("uri="))
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}" + (f"?{shown}" if shown else "")


def without_secrets(text: str, url: str) -> str:
    """Return a message about a URL, such as a library's error, without the secrets of that URL.

    Parameters
    ----------
    text : str
    url : str
        As it was requested.
    """
    parts = urllib.parse.urlsplit(url)
    secrets = [url, parts.netloc.rpartition("@")[0]]
    secrets += [part for part in parts.query.split("&") if not part.startswith("uri=")]
    for secret in filter(None, secrets):
        text = text.replace(secret, public(secret) if secret == url else "…")
    return text
