from pathlib import Path

from probe.store import Store
from probe.store.schema_page import schema_page

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_in_the_documents_is_the_generated_one() -> None:
    page = (ROOT / "docs" / "schema.md").read_text(encoding="utf-8")
    assert page == schema_page(), "run scripts/make-docs"


def test_every_table_and_column_is_explained() -> None:
    page = schema_page()
    with Store.memory() as store:
        tables = [name for (name,) in store.query("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in set(tables) - {"migrations"}:
            _, _, section = page.partition(f"\n## {table}\n")
            section, _, _ = section.partition("\n## ")
            assert section.strip().split("\n")[0].endswith((".", ".**"))
            rows = {line.split("|")[1].strip(" `"): line for line in section.splitlines() if line.startswith("| `")}
            for row in store.query(f"PRAGMA table_info({table})"):
                assert len(rows[row[1]].split("|")[3].strip()) > 5
