"""The English article of a class name: "a dog", "an hourglass", and none for "scissors", "rain" or "dog barking".

Spelling nearly always decides; the lists hold the exceptions: mass nouns, plurals without s, nouns in -ing and -s.
"""

from __future__ import annotations

import re
import unicodedata


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DETERMINED = re.compile(
    r"(?:an?|the|no|some|any|all|both|each|every|many|several|few|my|your|his|her|its|our|their|this|that|these|those|"
    r"two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\d+) ",
    re.IGNORECASE,
)
_MASS = _words(
    "people grass water sky rain snow ground traffic noise wind fire police cattle poultry livestock furniture "
    "luggage baggage equipment machinery clothing jewelry jewellery software hardware rice bread flour sand mud "
    "dust fog mist smoke steam hail lightning thunder sunlight daylight darkness weather food meat beef pork "
    "butter sugar salt money music silence speech rubbish garbage litter seaweed foliage vegetation scenery "
    "wildlife footage graffiti spaghetti confetti packaging parking scaffolding flooring roofing plumbing bedding"
)
_PLURAL = _words(
    "children mice men women teeth feet geese oxen lice dice cacti fungi bacteria larvae algae skis taxis kiwis "
    "bikinis zucchinis safaris tsunamis martinis corgis menus emus gnus tutus gurus haikus"
)
_MEN = _words("fire police snow sports fisher sales post gentle crafts gun work dust milk")  # before -men
_SINGULAR = _words(
    "lens canvas atlas alias gas pancreas bias christmas rhinoceros albatros thermos cosmos asbestos chaos "
    "triceratops cyclops biceps triceps series species"
)
_NOUNS = _words(
    "ring earring keyring wing lacewing swing king viking sling spring string hamstring shoestring thing ceiling "
    "building painting drawing engraving carving railing awning wedding crossing pudding herring dumpling "
    "duckling gosling sapling seedling starling sibling stocking bearing being clearing dwelling evening morning "
    "meeting opening casing housing icing lining siding brambling bunting covering fitting mooring landing "
    "drawstring bowstring wingding"
)
# Verbs that take an object: "playing guitar" is an activity, while "crying baby" and "swimming pool" are things.
_DOING = _words(
    "answering applying arranging assembling baking bandaging bending blowing braiding breading brushing building "
    "carrying carving catching celebrating changing checking chopping cleaning cooking counting cracking curling "
    "cutting decorating digging doing drawing dribbling drinking driving drumming eating exercising extinguishing "
    "feeding filling fixing flipping flying folding frying getting giving grinding grooming hitting holding "
    "hugging juggling kicking kissing laying lifting lighting making massaging milking mopping mowing moving "
    "opening packing passing peeling petting picking planting playing pouring presenting pulling pumping punching "
    "pushing reading recording riding ripping scrambling setting shaking sharpening shaving shearing shining "
    "shoveling shuffling skipping slapping smoking sniffing spraying stomping sweeping swinging taking tapping "
    "tasting throwing tickling training trimming tossing tying unboxing unloading using walking washing watering "
    "waxing wearing wrapping writing"
)
_TOOLS = _words(
    "bag basket board boat book bowl box brush cabinet cap car cart chair cup desk disc door glass glove hat "
    "horse iron jacket lamp machine mat meter mill needle pan paper pen pin plane pole pool pot rack rig rod room "
    "saucer scale shoe stick stone suit table target tool tray truck van wheel"
)
_HEAD = re.compile(
    r" (?:(?:of|from|in|on|with|without|at|by|for|to|near|over|under|behind|beside|that|which|seen)(?= )|\(|"
    r"\S+ing (?=\S))"
)
_CONSONANT = re.compile(
    r"(?:uni(?![dm]|n[^t])|u(?:s[aeu]|t[eio]|k[aeu]|r[aei]|bi|gan|fo)|u-|eu|ew[ae]|ewer|one(?![a-z])|once(?![a-z])|ouija)"
)
_SILENT = re.compile(r"(?:hour|honest|hono|heir)")
_SPELLED = re.compile(
    r"(?:[AEFHILMNORSX](?![A-Za-z])|[FHLMNRSX][B-DF-HJ-NP-TV-Z\d]+(?![a-z])|SUV|LED|MRI|SOS|RFID|[AI]{2})"
)
_SPELLED_U = re.compile(r"U(?:[A-Z\d]{0,2})(?![A-Za-z])")


def with_article(name: str) -> str:
    """The name with its article; unchanged if it is plural, uncountable, an activity, or has a determiner."""
    if not name.strip() or _DETERMINED.match(name) or _is_bare(name):
        return name
    return f"{'an' if _starts_with_vowel(name) else 'a'} {name}"


def _is_bare(name: str) -> bool:
    """Whether the name takes no article: an activity, or a plural or uncountable head noun."""
    words = re.findall(r"[^\W\d_]+(?:['-][^\W\d_]+)*", name.lower())
    if not words:
        return False
    if words[-1].endswith("ing") and words[-1].rpartition("-")[2] not in _NOUNS:
        return True
    if len(words) > 1 and words[0] in _DOING and words[-1] not in _TOOLS:
        return True
    head = re.findall(r"[^\W\d_]+", _HEAD.split(name.lower(), maxsplit=1)[0])[-1:]
    return bool(head) and _is_uncounted(head[0])


def _is_uncounted(noun: str) -> bool:
    if noun in _SINGULAR:
        return False
    irregular = noun in _MASS or noun in _PLURAL or (noun.endswith("men") and noun[:-3] in _MEN) or noun[-5:] == "women"
    return irregular or bool(re.search(r"[^sui]s$", noun))


def _starts_with_vowel(name: str) -> bool:
    """Whether the name is pronounced with a vowel first: an hour, a unicorn, an SUV, a UAV, an 8-ball."""
    plain = re.sub(r"^[^0-9A-Za-z]+", "", unicodedata.normalize("NFKD", name))
    if _SPELLED.match(plain) or re.match(r"(?:8|11(?!\d)|18(?!\d))", plain):
        return True
    if _SPELLED_U.match(plain):
        return False
    low = plain.lower()
    return bool(_SILENT.match(low)) or (low[:1] in tuple("aeiou") and not _CONSONANT.match(low))
