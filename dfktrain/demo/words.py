"""The words of the demo.

The built-in model has never seen any of them: its training data never contained one (a test checks this)."""

from __future__ import annotations

NOUNS = (
    "table bicycle puppy boy girl elephant giraffe eagle bottle pillow blanket bench sculpture violin "
    "keyboard chef lady clown surfboard snowman glove scarf clock window shelf stove knife bowl "
    "suitcase wolf fox hedgehog butterfly crow swan globe sandwich waffle cow toy monkey donkey baby "
    "jug vase tractor van sleigh"
).split()
TRAITS = (
    "glossy tiny fluffy heavy dirty shiny empty twisted dusty sleepy muddy happy narrow clever brave "
    "curved carved old velvet smooth wavy bulky oval vintage massive rusty sturdy chubby gloomy lively"
).split()
VERBS = ["carrying", "observing", "leaving", "climbing", "grabbing", "rubbing", "squeezing"]
INDOOR = ["office", "hallway", "library", "gallery", "bathroom", "lobby", "factory", "gym"]
OUTDOOR = ["beach", "field", "valley", "village", "cliff", "river", "meadow", "backyard"]

FIRST_NAMES = (
    "Novita Silvia Viktor Vania Alif Yusuf Arief Latif Rizky Evi Octavia Kevin Devi Fauzy Luthfi Vicky "
    "Qori Nazwa Wahab Syarif Jovan Elvira Ivan Deddy Cindy Willy Sandy Hardy Vera Bobby"
).split()
LAST_NAMES = (
    "Saputra Wibowo Hidayat Kusuma Siregar Nasution Pratama Lubis Gunawan Hutabarat Mahendra"
).split()
TOWNS = (
    "Surabaya Wonogiri Klaten Blitar Blora Kulonprogo Slawi Boyolali Purwokerto Jatiwangi Sawahlunto "
    "Bojonegoro Tulungagung Jogja Sragen Majalengka Manokwari Pacitan Ngawi Cilacap"
).split()
EVENTS = ["banjir", "gempa", "longsor", "kebakaran", "demonstrasi", "vaksinasi"]
#: The other words of titles and analyses.
PHRASES = (
    "kabar video foto menipu warga mencuri dana menyuap hakim usir tolak bubarkan tanda klaim membahas "
    "peristiwa tokoh kelompok terbukti terbantah"
).split()
SHAPES = {"segitiga": "terbantah", "silang": "terbantah", "lingkaran": "terbukti", "persegi": "terbukti"}
COLOURS = {"merah": (205, 35, 45), "biru": (40, 80, 195), "hijau": (40, 145, 75), "ungu": (125, 55, 160)}

#: Every word above that carries meaning, in lower case.
ALL = frozenset(
    word.lower()
    for words in (
        NOUNS,
        TRAITS,
        VERBS,
        INDOOR,
        OUTDOOR,
        FIRST_NAMES,
        LAST_NAMES,
        TOWNS,
        EVENTS,
        PHRASES,
        SHAPES,
        COLOURS,
    )
    for word in words
)
