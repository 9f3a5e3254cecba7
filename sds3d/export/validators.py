"""Checkers of other people that are asked where they are found: Khronos' for glTF, Pixar's for USD."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

FOLDER = "SDS3D_GLTF_VALIDATOR"
"""Environment variable: the folder in which `npm install gltf-validator` was run.

Never the current folder by itself: that may be somebody else's, and what lies there would be run.
"""
SECONDS = 15.0
_SCRIPT = """
const fs = require('fs'), path = require('path'), file = process.argv[1];
const home = fs.realpathSync(path.dirname(file)) + path.sep;
const beside = async uri => {
  if (/^[a-z][a-z0-9+.-]+:/i.test(uri)) throw new Error('an address is not opened');
  const place = fs.realpathSync(path.resolve(home, decodeURIComponent(uri)));
  if (!place.startsWith(home) || !fs.statSync(place).isFile()) throw new Error('outside its folder');
  return new Uint8Array(fs.readFileSync(place));
};
require('gltf-validator').validateBytes(new Uint8Array(fs.readFileSync(file)),
  {uri: path.basename(file), externalResourceFunction: beside, maxIssues: 100})
  .then(report => console.log(JSON.stringify(report.issues)), error => { console.error(String(error)); process.exit(3); });
"""  # noqa: E501


def verdict(path: Path) -> dict[str, Any]:
    """What the validator for a file says: its name, errors, warnings and messages; or why it was not asked."""
    kind = path.suffix.lower()
    if kind in (".glb", ".gltf"):
        return validate_gltf(path)
    if kind.startswith(".usd"):
        return validate_usd(path)
    return {"validator": "none for this format"}


def validate_gltf(path: Path) -> dict[str, Any]:
    """The Khronos glTF validator, by way of node."""
    node = shutil.which("node")
    if node is None:
        return {"validator": "gltf-validator was not asked: node is missing"}
    folder = os.environ.get(FOLDER)
    if not folder:
        return {"validator": f"gltf-validator was not asked: npm install gltf-validator, and point {FOLDER} to it"}
    command = [node, "-e", _SCRIPT, str(path.resolve())]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"validator": f"gltf-validator took more than {SECONDS:.0f} s and was stopped"}
    except OSError as error:
        return {"validator": f"gltf-validator was not asked: {error}"}
    if done.returncode:
        if "Cannot find module" in done.stderr:
            return {"validator": f"gltf-validator was not asked: npm install gltf-validator, and point {FOLDER} to it"}
        words = " ".join(done.stderr.split())[:200]
        return {"validator": "gltf-validator", "errors": 1, "warnings": 0, "messages": [words]}
    try:
        issues = json.loads(done.stdout)
    except ValueError:
        return {"validator": "gltf-validator gave no report"}
    messages = [f"{row['message']} ({row.get('pointer', path.name)})" for row in issues["messages"]]
    return {
        "validator": "gltf-validator",
        "errors": issues["numErrors"],
        "warnings": issues["numWarnings"],
        "messages": messages,
    }


def validate_usd(path: Path) -> dict[str, Any]:
    """All of UsdValidation."""
    if importlib.util.find_spec("pxr") is None:
        return {"validator": "UsdValidation was not asked: usd-core is missing"}
    from pxr import Tf, Usd, UsdValidation

    every = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    try:
        found = UsdValidation.ValidationContext(every).Validate(Usd.Stage.Open(str(path)))
    except Tf.ErrorException:
        return {"validator": "UsdValidation", "errors": 1, "warnings": 0, "messages": ["it could not go through it"]}
    kinds = [str(error.GetType()).rpartition(".")[2].lower() for error in found]
    return {
        "validator": f"UsdValidation, {len(every)} validators",
        "errors": sum("error" in kind for kind in kinds),
        "warnings": sum("error" not in kind for kind in kinds),
        "messages": [error.GetMessage() for error in found],
    }
