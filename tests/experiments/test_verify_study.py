"""The numbers of an ablation are run again, too."""

import pytest
from small_study import finished, study_of

from assay.errors import ConfigError, RunError
from assay.experiments.design import Arm
from assay.experiments.laboratory import Laboratory
from assay.experiments.paper.verify_study import read_arms, verify_study
from assay.experiments.study import Study

ARMS = [Arm("long", {"train.steps": 12}), Arm("short", {"train.steps": 1})]


@pytest.mark.slow
def test_the_mean_of_each_arm_and_each_difference_come_back(base, tmp_path):
    study = finished(study_of(base, tmp_path, ARMS))
    opened = Study.open(tmp_path / "lab", study.name)
    found = verify_study(read_arms(opened, ""), Laboratory(tmp_path / "a", workers=2))
    assert {each.id: each.answer for each in found} == dict.fromkeys(
        ("long.mean", "short.mean", "short.difference"), "reproduced bit for bit"
    )
    one = verify_study(read_arms(opened, "short"), Laboratory(tmp_path / "b"), cheap=True)
    assert [(each.id, each.ran, each.tasks) for each in one] == [
        ("short.mean", 1, 3),
        ("short.difference", 1, 6),
    ]
    with pytest.raises(ConfigError, match="shor: no arm of this name"):
        verify_study(read_arms(opened, "shor"), Laboratory(tmp_path / "c"))


def test_a_study_that_has_not_ended_gets_a_sentence(base, tmp_path):
    study = study_of(base, tmp_path, ARMS)
    with pytest.raises(RunError, match="has not ended"):
        verify_study(read_arms(study, ""), Laboratory(tmp_path / "a"))
