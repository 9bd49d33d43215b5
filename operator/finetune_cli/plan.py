"""`finetune plan`: reads the manifest, plans it, prints it."""

from __future__ import annotations

import json
import sys
from typing import BinaryIO, TextIO

from finetune_cli.outline import outline, tree
from finetune_cli.request import RunRequest
from finetune_cli.run import load_one, planned_for


def show(
    request: RunRequest, output: str, *, stdin: BinaryIO = sys.stdin.buffer, stdout: TextIO = sys.stdout, stderr: TextIO = sys.stderr
) -> None:
    """Print what `finetune run` with the same options would do."""
    planned = planned_for(request, load_one(request.manifest, stdin=stdin, stderr=stderr))
    if output == "json":
        print(json.dumps(outline(planned), indent=2, ensure_ascii=False), file=stdout)
    elif output == "yaml":
        import yaml

        print(yaml.safe_dump(outline(planned), sort_keys=False, allow_unicode=True, width=120).rstrip(), file=stdout)
    else:
        from finetune_cli.console import Console

        Console(stdout).print(tree(planned))
