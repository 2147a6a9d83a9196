"""Pages for people need no internet."""

import re

import pytest
from world import spec_named


@pytest.fixture(scope="module")
def client(world):
    spec = spec_named("paged")
    with world.server(spec, ready=False) as client:
        yield client


def test_the_first_page_leads_to_models_and_pages(client):
    page = client.get("/")
    assert page.status_code == 200
    links = re.findall(r'href="([^"]+)"', page.text)
    assert "v1/models/paged" in links
    assert [client.get(f"/{link}").status_code for link in links if link != "readyz"] == [200] * (len(links) - 1)


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_api_is_documented_without_anything_from_elsewhere(client, path):
    page = client.get(path)
    assert page.status_code == 200
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(sources) >= 2
    for source in sources:
        assert source.startswith("/docs-files/")
        assert client.get(source).status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text


def test_reports_are_listed(world, client):
    assert client.get("/reports/").status_code == 200
    folder = world.home / "reports" / "paged"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "one & two.html").write_text("<p>good</p>")
    page = client.get("/reports/")
    assert 'href="paged/one%20%26%20two.html">paged/one &amp; two.html<' in page.text
    assert client.get("/reports/paged/one%20%26%20two.html").text == "<p>good</p>"
