"""Articles of class names: by sound, and none for plurals, mass nouns and activities."""

import pytest

from rlbench.core.suite import load_suite
from rlbench.encoders.articles import with_article

A = "ring|building|king|string bean|washing machine|crying baby|unicycle|ukulele|UAV|European bison|one-way sign|lens"
AN = "hourglass|X-ray|SUV|LED|MRI scanner|umbrella|heirloom tomato|8-ball|earring|airplane wing|empty bottle|urn"
BARE = "police|cattle|furniture|children|mice|scissors|playing guitar|running|dog barking|two dogs|the moon|feet|skis"


@pytest.mark.parametrize(("article", "names"), [("a ", A), ("an ", AN), ("", BARE)])
def test_names_get_the_article_of_their_sound(article: str, names: str) -> None:
    assert [with_article(name) for name in names.split("|")] == [article + name for name in names.split("|")]


def test_bundled_worlds_keep_the_prompts_that_their_towers_were_trained_with() -> None:
    phrases = {
        label.name: label.phrase for s in ("image", "image-unseen", "thermal") for label in load_suite(s).task.classes
    }
    assert {name: phrase for name, phrase in phrases.items() if phrase} == {
        "ring": "ring",
        "hourglass": "a hourglass",
        "building": "building",
        "campfire": "campfire",
    }
