"""Names of routes: few, whatever clients ask for."""

from service.http.route_labels import OTHER, RouteNames


def test_a_path_has_its_own_name_its_templates_or_other() -> None:
    names = RouteNames(["/models", "/models/{name}", "/models/{name}/versions/{version}", "/files/{rest:path}"])
    assert names.name_of("/models") == "/models"
    assert names.name_of("/models/a") == "/models/{name}"
    assert names.name_of("/models/a/versions/1") == "/models/{name}/versions/{version}"
    assert names.name_of("/files/a/b") == "/files/{rest:path}"
    for path in ("/", "/models/", "/models/a/versions", "/models/a/versions/1/2", "/modelsx"):
        assert names.name_of(path) == OTHER
