"""Python files of the user's own, named under ``plugins`` in config.yaml: they register bridges and methods.

Nothing else is ever imported: not what a bridge's or a model's folder brings, only what the user names.
"""

import importlib.util
import os
import sys
from pathlib import Path

from telepathy.errors import TelepathyError
from telepathy.files import fingerprint
from telepathy.workflow import PLUGINS_VARIABLE


def import_plugins() -> None:
    """Import every announced plugin that this process has not imported yet.

    Raises:
        TelepathyError: if one fails, with its own reason.
    """
    for path in filter(None, os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep)):
        name = f"telepathy_plugin_{Path(path).stem}_{fingerprint(path)}"
        if name not in sys.modules:
            _import(Path(path), name)


def _import(path: Path, name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # it is a Python file
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except TelepathyError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise TelepathyError(
            f"The plugin {path.name} could not be imported ({type(error).__name__}: {error}): "
            f"python {path.name} shows where."
        ) from error
