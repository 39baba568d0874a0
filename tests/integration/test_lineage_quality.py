"""Every explicit cause in real transcripts is found and nothing is invented; the whole is `make quality-lineage`."""

from __future__ import annotations

import pytest

from context_graph.bootstrap import Resources
from tests.quality.lineage import SETS, measure, perfect
from tests.quality.sets import DATA


@pytest.mark.skipif(not (DATA / "tau_bench").is_dir(), reason=f"no transcripts in {DATA}")
@pytest.mark.parametrize("name", SETS)
async def test_every_explicit_cause_is_found_and_nothing_is_invented(resources: Resources, name: str) -> None:
    tenant = await resources.tenants.ensure("measured", 1)
    found = await measure(resources, tenant, name, runs=4)
    assert perfect(found), found
