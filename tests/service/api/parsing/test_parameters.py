"""What is asked beside an image, in the query or in the form: known, nearly known, contradictory, and unknown names."""

import httpx
import pytest

from tests.service.api.endpoints.test_classify import assert_problem

pytestmark = pytest.mark.anyio

PATHS = ["/classify", "/classify/batch", "/explain", "/embed"]


def labels(answer: httpx.Response) -> int:
    assert answer.status_code == 200, answer.text
    document = answer.json()
    return len(document.get("results", [document])[0]["predictions"])


@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
async def test_fields_of_a_form_mean_the_same_as_parameters_of_the_query(
    client: httpx.AsyncClient, red: bytes, path: str
) -> None:
    async def ask(fields: dict[str, str], query: str = "") -> httpx.Response:
        return await client.post(path + query, files={"file": red}, data=fields)

    assert labels(await ask({"top_k": "2", "model": "tiny"})) == 2
    assert labels(await ask({"model": "tiny:1"}, "?top_k=3")) == 3
    assert labels(await ask({"top_k": "3"}, "?top_k=3")) == 3
    assert_problem(await ask({"top_k": "2"}, "?top_k=3"), 400, "bad_query")
    assert_problem(await ask({"top_k": "0"}), 400, "bad_top_k")
    assert_problem(await ask({"top_k": ""}), 400, "bad_top_k")
    assert_problem(await ask({"model": "other"}), 404, "model_not_found")


async def test_fields_before_and_behind_the_file_are_both_read(client: httpx.AsyncClient, red: bytes) -> None:
    field, file = (None, b"2"), ("a.jpg", red)
    for parts in ([("top_k", field), ("file", file)], [("file", file), ("top_k", field)]):
        assert labels(await client.post("/classify", files=parts)) == 2


async def test_heat_maps_and_embeddings_take_fields_too(client: httpx.AsyncClient, red: bytes) -> None:
    second = (await client.post("/explain", files={"file": red})).json()["predictions"][1]["label"]
    explained = await client.post("/explain", files={"file": red}, data={"label": second})
    assert [best["label"] for best in explained.json()["predictions"]] == [second]
    explained = await client.post("/explain?label=red", files={"file": red}, data={"index": "1"})
    assert_problem(explained, 400, "bad_query")
    embedded = await client.post("/embed", files={"file": red}, data={"normalize": "true"})
    assert embedded.json()["normalized"] is True
    assert_problem(await client.post("/embed", files={"file": red}, data={"normalize": "x"}), 400, "bad_normalize")
    for path in ("/explain", "/embed"):
        answer = await client.post(path, files={"file": red}, data={"model": "other"})
        assert_problem(answer, 404, "model_not_found")


async def test_fields_of_json_mean_the_same_too(client: httpx.AsyncClient) -> None:
    images = ["eA=="]
    answer = await client.post("/classify/batch", json={"images": images, "model": "other"})
    assert_problem(answer, 404, "model_not_found")
    answer = await client.post("/classify/batch", json={"images": images, "top_k": 0})
    assert_problem(answer, 400, "bad_top_k")
    answer = await client.post("/classify/batch", json={"images": images, "topK": 1})
    assert_problem(answer, 400, "unknown_parameter")
    answer = await client.post("/classify/batch", json={"images": images, "top_k": 1, "note": [1], "model": None})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *((name, "top_k") for name in ("topk", "k", "K", "TOP_K", "topK", "top-k", "top_n", "tpo_k", "top_k[]")),
        *((name, "model") for name in ("Model", "MODEL", "models", "model_name", "modelName", "modle", "model ")),
    ],
)
@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
async def test_a_near_miss_is_refused_with_the_right_word(
    client: httpx.AsyncClient, red: bytes, path: str, given: str, meant: str
) -> None:
    in_query = await client.post(path, params={given: "2"}, files={"file": red})
    in_form = await client.post(path, files={"file": red}, data={given: "2"})
    for answer in (in_query, in_form):
        assert_problem(answer, 400, "unknown_parameter")
        assert f"did you mean `{meant}`?" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "given", "meant"),
    [("/explain", "Label", "label"), ("/explain", "idx", "index"), ("/embed", "normalise", "normalize")],
)
async def test_each_path_knows_its_own_words(
    client: httpx.AsyncClient, red: bytes, path: str, given: str, meant: str
) -> None:
    answer = await client.post(path, params={given: "1"}, content=red)
    assert_problem(answer, 400, "unknown_parameter")
    assert f"did you mean `{meant}`?" in answer.json()["detail"]


@pytest.mark.parametrize("path", PATHS)
async def test_other_unknown_names_are_ignored(client: httpx.AsyncClient, red: bytes, path: str) -> None:
    others = {"mode": "x", "_": "1", "utm_source": "a", "lang": "de", "key": "k", "ß": "ü", "": "", "m" * 100: "1"}
    assert (await client.post(path, params=others, files={"file": red})).status_code == 200
    assert (await client.post(path, files={"file": red}, data=others)).status_code == 200


async def test_an_unknown_model_or_version_is_answered_with_those_that_exist(
    client: httpx.AsyncClient, red: bytes
) -> None:
    answer = await client.post("/classify?model=resnet50", content=red)
    assert_problem(answer, 404, "model_not_found")
    assert answer.json()["detail"] == "There is no such model; choose one of: tiny."
    answer = await client.post("/classify?model=tiny:7", content=red)
    assert answer.json()["detail"] == "There is no such version of tiny; choose one of: 1."
    assert "choose one of: tiny." in (await client.post("/v2/models/other/infer")).json()["error"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/predict", "POST /classify"),
        ("/classify/", "write /classify"),
        ("/Classify", "write /classify"),
        ("/CLASSIFY/BATCH/", "write /classify/batch"),
        ("/health", "/health/live and /health/ready"),
        ("/healthz", "/health/live and /health/ready"),
        ("/metrics", "on the admin port"),
        ("/nowhere", "/docs"),
    ],
)
async def test_a_path_that_does_not_exist_leads_to_the_one_that_was_meant(
    client: httpx.AsyncClient, path: str, words: str
) -> None:
    for answer in (await client.get(path), await client.post(path, content=b"x")):
        assert_problem(answer, 404, "not_found")
        assert words in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/classify", "supports only POST; POST an image, for example with curl -F file=@photo.jpg"),
        ("GET", "/explain", "or use the page at /"),
        ("PUT", "/embed", "supports only POST"),
        ("GET", "/classify/batch", "-F files=@1.jpg"),
        ("POST", "/", "supports only GET, HEAD; send images to POST /classify"),
        ("POST", "/models", "supports only GET, HEAD."),
        ("GET", "/v2/repository/index", "supports only POST."),
    ],
)
async def test_a_wrong_method_is_answered_with_the_right_one(
    client: httpx.AsyncClient, method: str, path: str, words: str
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == 405
    assert words in answer.json().get("detail", answer.json().get("error"))
    assert answer.headers["allow"]
