"""Generators beside versions: what a version refers to made its member, and who has none says so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.bandits.ensemble import Admission
from actors.bandits.version import Version
from cluster.errors import RegistryError
from cluster.registry import Registry
from tests.compose_cases import proposed
from tune.composer import Composition
from tune.confirm import Confirmed, untested
from tune.keeping import explained, kept
from tune.spending import Spending
from tune.stages import Stages


def composition(found: Confirmed) -> Composition:
    case = proposed()
    return Composition(case.work, case.base, "linear", case.proposal, found)


def test_a_version_refers_to_the_generator_of_its_member(tmp_path: Path) -> None:
    """Fetched anew it says of the member's contexts what the member says; one row and many round apart."""
    case, registry = proposed(), Registry(str(tmp_path))
    made = composition(replace(untested("", Spending()), admission=Admission(True), value=0.5))
    registry.publish("shop", made.version(Stages(None), made.kept(registry, "shop")).save)
    version, member = Version.load(registry.fetch("shop")), case.proposal.member
    assert version.generator == version.reader == ("shop-generator", 1), "a language model reads for it"
    assert member is not None
    again = kept(registry, version)
    codes = again.head.codes
    for c, name in enumerate(member.names_C):
        said = again.generate(member.prototypes_CH[c : c + 1])
        code = int(name.partition("z")[2])
        assert code < codes
        np.testing.assert_allclose(said.means_CAD[code], member.means_CAD[c], rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(said.ranks_CADR[code], member.ranks_CADR[c], rtol=1e-12, atol=1e-15)
    assert again.fingerprint == version.feature_map.fingerprint


def test_a_member_that_was_not_admitted_is_set_aside_and_leaves_no_generator(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    made = composition(untested("no gain", Spending()))
    about = made.kept(registry, "shop")
    assert about == {"proposed": {"name": "shop-proposed", "version": 1}}
    registry.publish("shop", made.version(Stages(None), about).save)
    assert registry.versions("shop-generator") == []
    version = Version.load(registry.fetch("shop"))
    assert "generated" not in version.ensemble.names
    assert "generated" in explained(registry, version).ensemble.names
    with pytest.raises(RegistryError, match="no generated member"):
        kept(registry, version)
