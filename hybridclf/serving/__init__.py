"""HTTP server for reranking and classification, behind `hybridclf serve` and custom servers (the extra `server`).

>>> from hybridclf.serving import Limits, create_app
>>> app = create_app(HybridClassifier.from_pretrained("digits"), Limits(queue=64))  # doctest: +SKIP
"""

from importlib import import_module

from ..errors import MissingDependencyError
from ..utils.installing import pip_install

try:
    for name in ("fastapi", "prometheus_client", "pydantic", "python_multipart", "uvicorn"):
        import_module(name)
except ImportError as error:
    raise MissingDependencyError(f"{error}; type: {pip_install('server')}") from error

from .app import create_app
from .auth import check_private, read_keys, reload_keys
from .limits import Limits
from .reloading import reload_model
from .server import check_address, check_certificate, check_proxies, run

__all__ = [
    "Limits",
    "check_address",
    "check_certificate",
    "check_private",
    "check_proxies",
    "create_app",
    "read_keys",
    "reload_keys",
    "reload_model",
    "run",
]
