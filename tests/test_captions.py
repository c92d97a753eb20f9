"""Captions from tags and names, and what is done to all of them."""

import importlib.util
import sys

import pytest

from audiogen_jax.core.errors import InputError
from audiogen_jax.data import captions
from audiogen_jax.data.captions import CaptionRules


@pytest.mark.parametrize(
  ("text", "want"),
  [
    ("two\nlines\tand  more ", "two lines and more"),
    ("nul\0 and \x1b[0m", "nul and [0m"),
    ("half a \ud83d dog", "half a dog"),
    ("line\u2028s\x85", "line s"),
    ("cafe\u0301", "café"),
    ("🐶 犬", "🐶 犬"),
    ("long " * 2000, ("long " * 2000).strip()),
    ("", ""),
    (" \r\n", ""),
  ],
)
def test_clean(text, want):
  assert captions.clean(text) == want
  assert captions.clean(want) == want


def test_tags_become_the_papers_pseudo_sentence():
  assert captions.of_tags(["dog bark", "park"]) == "dog bark park"
  tags = ["Domestic animals, pets", "Bow-wow", "Crack (sound)", "Church_bell"]
  want = "domestic animals pets bow-wow crack sound church bell"
  assert captions.of_tags(tags) == want
  assert captions.of_tags([]) == ""


@pytest.mark.parametrize(
  ("stem", "want"),
  [
    ("DOG_Barks-Angry 02", "dog barks angry"),
    ("HeavyRain on Tin 96k_01", "heavy rain on tin"),
    ("Dog's bowl, A", "dog's bowl"),
    ("0001", ""),
    ("犬 吠える 3", "犬 吠える"),
    ("DOORWood_CreakySlow Open-02_ABC_LIB01", "creaky slow open"),
    ("AMBUrbn-TRAF_Busy Street_ABC_LIB_MKH 8040", "busy street"),
    ("RAINConc_HeavyRain", "rainconc heavy rain"),  # too short for UCS
    ("a dog_barks_at_night", "dog barks at night"),
  ],
)
def test_names_of_files_speak(stem, want):
  assert captions.of_file_name(stem) == want


@pytest.mark.parametrize(
  ("label", "title", "want"),
  [
    ("dog bark", "Dog barking at night (nice).wav", "dog bark at night nice"),
    ("dog bark", "DogBARKING.wav", "dog bark"),
    ("dog bark", "dogbarks 2.wav", "dog bark"),
    ("dog bark", "Dog in", "dog bark"),
    ("dog bark", "The Big Dog", "dog bark big"),
    ("rain", "rain on car roof.WAV", "rain on car roof"),
    ("rain", "lg train, sm57.wav", "rain train"),
    ("sea waves", "20100803.surf.seagulls.wav", "sea waves surf seagulls"),
    ("sea waves", "wave", "sea waves"),
    ("baby cry", "crying babys", "baby cry"),
    ("fire crackling", "Fire_Crackles(No Room)", "fire crackling no room"),
    ("helicopter", "Helicopter Fly By", "helicopter fly by"),
    ("rain", "", "rain"),
    ("犬", "犬 鳴く", "犬 鳴く"),
  ],
)
def test_titles_add_what_is_new(label, title, want):
  assert captions.of_title(label, title) == want


def test_rules():
  text = "A Dog is barking at the park, on 3 well-worn benches"
  assert CaptionRules().apply(text) == text
  assert CaptionRules(lower=True).apply(text) == text.lower()
  short = CaptionRules(stop_words=True).apply(text)
  assert short == "Dog barking park well-worn benches"
  assert CaptionRules(stop_words=True).apply("the and of") == ""


@pytest.mark.skipif(
  not importlib.util.find_spec("simplemma"), reason="simplemma not installed"
)
def test_lemmas_make_the_papers_example():
  rules = CaptionRules(lower=True, stop_words=True, lemmas=True)
  got = rules.apply("A dog is barking at the park")
  assert got == "dog bark park"


def test_lemmas_without_their_library(monkeypatch):
  monkeypatch.setitem(sys.modules, "simplemma", None)
  captions._lemma.cache_clear()
  with pytest.raises(InputError, match=r"pip install .audiogen_jax\[lemmas\]"):
    CaptionRules(lemmas=True).apply("dogs")


def test_speech():
  assert captions.is_about_speech("a man", ["Male speech, man speaking"])
  assert captions.is_about_speech("Speeches in a hall", [])
  assert not captions.is_about_speech("people talk", ["Conversation"])
