"""Writer of resnet-service.cdx.json, the SBOM in the wheel (PEP 770): what the wheel holds that others made.

python -m release.sbom

The document is CycloneDX 1.6. It has no time and no random number, so that equal wheels have equal SBOMs; `setup.py`
copies it into the metadata. What an installation adds to it is in the metadata's Requires-Dist.
"""

import json
import tomllib
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from release.bundled import BUNDLED, Bundled

ROOT = Path(__file__).parents[1]
FILE = Path(__file__).with_name("resnet-service.cdx.json")


def sbom() -> str:
    """Return the SBOM of this version's wheel as JSON."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    name, version = project["name"], project["version"]
    purl = f"pkg:pypi/{name}@{version}"
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, purl)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": purl,
                "name": name,
                "version": version,
                "description": project["description"],
                "licenses": [{"license": {"id": project["license"]}}],
                "purl": purl,
            }
        },
        "components": [_component(one) for one in BUNDLED],
        "dependencies": [
            {"ref": purl, "dependsOn": [_reference(one) for one in BUNDLED]},
            *({"ref": _reference(one)} for one in BUNDLED),
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _component(one: Bundled) -> dict[str, Any]:
    licence = {"id": one.licence} if one.is_spdx else {"name": one.licence}
    component = {
        "type": "library" if one.purl else "data",
        "bom-ref": _reference(one),
        "name": one.name,
        "version": one.version,
        "licenses": [{"license": licence}],
        "properties": [{"name": "resnet-service:path", "value": one.folder}],
    }
    return component | ({"purl": one.purl} if one.purl else {})


def _reference(one: Bundled) -> str:
    return one.purl or f"{one.name}@{one.version}"


if __name__ == "__main__":
    FILE.write_text(sbom(), "utf-8")
