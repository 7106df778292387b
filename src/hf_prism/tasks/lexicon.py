"""English words, names and objects of the word problems among them, and plain sentences made of them.

Each list runs roughly from common to rare, so that a prefix of it is a sensible smaller list.
"""

from __future__ import annotations

import re
from random import Random


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split()))


def _pairs(text: str) -> dict[str, str]:
    return {word: form for word, _, form in (pair.partition(":") for pair in text.split())}


NAMES = _words(
    """
    Mary John Anna James Sarah David Emily Michael Lisa Tom Maria Daniel Emma Robert Sophia Sam Julia Peter Grace
    Mark Lucy Paul Alice Ben Carol Jack Laura Kevin Nina Adam Olivia Carlos Amy Luke Rachel Eric Mia Henry Kate
    Ryan Ella George Jane Leo Martha Oscar Ruth Simon Clara Victor Hannah Frank Rosa Alex Diana Tim Eva Joe Helen
    Max Tina Omar Ivy Hugo Priya Kenji Fatima Ali Wei Aisha Ravi Elena Marco Ingrid Pablo Yuki Zoe Noah Liam Ava
    Chloe Ethan Mason Logan Natalie Jason Betty Albert Jenny Randy Tony Wendy Jessica Andrew Joshua Brian Carla
    Janet Steve Bob Susan Karen Linda Jerry Jim Mike
    """
)

# Things that can be counted, owned, given away and put into boxes: the plural form.
OBJECTS = _words(
    """
    apples books pencils marbles stickers cards coins oranges cookies balls flowers eggs stamps shells toys pens
    candies bananas buttons beads bottles cups plates shirts hats keys stones leaves cakes pies tickets photos
    letters boxes bags chairs lamps ribbons balloons crayons erasers notebooks magazines puzzles peaches pears
    lemons grapes cherries tomatoes potatoes carrots onions muffins sandwiches pizzas donuts cupcakes candles
    blankets socks gloves rings bracelets postcards dolls kites robots trucks tiles bricks nails screws ropes
    baskets jars spoons forks knives bowls
    """
)

CONTAINERS = _words("boxes bags baskets shelves jars trays drawers tables rows bowls crates packs")

PEOPLE = _words(
    """
    man woman boy girl child person teacher student friend mother father brother sister doctor farmer worker player
    baby dog cat lady guy driver baker nurse cook singer dancer artist writer runner soldier police officer manager
    customer neighbor grandmother grandfather uncle aunt cousin daughter son wife husband mom dad kid grandma
    grandpa parent coach owner guest visitor tourist biker skier swimmer musician painter waiter chef pilot sailor
    king queen scientist engineer lawyer judge president leader captain horse bird fish cow pig sheep chicken
    rabbit mouse bear lion tiger elephant monkey puppy kitten toddler couple crowd group team family audience crew
    band class company
    """
)

PLACES = _words(
    """
    house school park store street city room kitchen garden beach office farm field table floor river road town
    library restaurant market hospital station church building museum theater bank hotel forest mountain lake pool
    bus train car boat bridge yard garage bedroom bathroom classroom playground stadium airport factory village
    island desert ocean sea sidewalk bench stage court gym mall shop cafe bar zoo barn fence door window wall roof
    corner hill valley grass snow sand water rain sun dark crowd city square counter shelf desk bed couch ladder
    trail path track tent camp
    """
)

NOUNS = _words(
    """
    time day year week month hour minute second morning afternoon evening night money dollar cent price cost number
    amount total sum rest half third quarter part piece pound ounce mile foot inch meter gallon cup liter gram side
    line point way thing life world hand head face eye arm leg hair body back name word story book page question
    answer problem idea fact reason plan game sport ball football basketball baseball soccer tennis team score goal
    race prize ticket movie music song dance guitar piano drum picture photo camera phone computer television video
    news paper pen pencil bag box bottle glass plate spoon knife food meal breakfast lunch dinner bread rice meat
    fish milk cheese butter egg fruit apple orange banana cake pie cookie candy sugar salt coffee tea juice beer
    wine ice cream pizza sandwich soup salad potato tomato vegetable corn bean tree flower plant leaf seed grass
    wood stone rock fire air light sound color shape circle triangle square angle length width height weight speed
    distance area volume size age shirt dress hat coat jacket shoe pants jeans skirt sock glove uniform helmet
    clothes cloth bike bicycle truck wheel engine motor road map trip visit vacation party birthday holiday gift
    present card letter mail job work business customer order sale profit loss tax bill pay salary wage bank
    account loan interest rate percent discount budget hour shift project test exam grade course lesson homework
    class paper report study science math art history language law rule power war peace government state country
    nation people public member population community group society church service program system process method
    result effect cause change increase decrease difference example case kind type form set list table row column
    step level order line end start beginning middle top bottom front inside outside left right north south east
    west weather rain snow wind storm cloud sky sun moon star earth land sea heat cold summer winter spring fall
    season animal pet tail nest egg wing cage toy doll puzzle block brick paint brush tool hammer nail machine
    robot key lock door chair sofa lamp clock watch mirror pillow blanket towel soap basket bucket rope string wire
    metal gold silver paper plastic glass oil gas fuel energy battery tank pipe hole bridge tower flag sign ring
    crown coin stamp sticker marble button needle thread health doctor medicine pain blood heart brain bone skin
    tooth nose ear mouth finger toe knee shoulder neck smile voice sleep dream hope love fear anger joy luck truth
    lie secret chance choice decision opinion view thought feeling memory mind soul spirit event accident mistake
    trouble danger risk safety fight attack death birth marriage wedding crime court police prison law vote
    election speech meeting conversation argument agreement contract interview message email internet website
    article magazine newspaper author poem novel chapter sentence paragraph statement premise hypothesis conclusion
    proof theorem equation expression function value variable integer fraction decimal digit factor prime root
    graph axis probability average mean median range ratio pattern sequence term pair
    """
)

VERBS = _words(
    """
    walk play work look ask need want use call try help talk turn start show like live believe hold happen follow
    stop create open close add spend grow offer remember love consider appear wait serve die expect stay reach kill
    remain suggest raise pass sell require report decide pull push carry watch cook clean wash paint plant pick
    pack order visit travel move jump climb dance smile laugh cry shout listen learn teach count check finish
    collect save earn cost share divide multiply subtract bake fix build buy bring catch choose cut drink drive eat
    fall feel fight find fly forget get give go have hear hide hit keep know lead leave lend lose make meet pay put
    read ride ring run say see send sing sit sleep speak stand steal swim take tell think throw understand wake
    wear win write discover develop explain describe compare measure weigh increase decrease double fill empty
    receive deliver return borrow enter exit arrive leave land cross park rest relax celebrate prepare plan invite
    greet hug kiss chase feed pet train race hike fish hunt skate surf ski sail row pour mix stir boil fry cover
    wrap tie hang drop lift shake touch point wave nod kick bounce roll slide spin swing stretch lean kneel gather
    pose perform practice study solve prove show calculate estimate assume conclude imply mean contain include
    equal represent form consist produce provide support allow cause change improve protect destroy damage break
    repair replace remove attach connect join separate sort arrange design draw print copy type post search explore
    examine notice observe recognize realize guess wonder imagine hope wish plan promise agree refuse deny admit
    accept reject vote argue complain apologize thank praise blame warn advise recommend discuss mention reply
    answer publish record film photograph advertise trade hire fire quit retire manage control direct guide lead
    compete
    """
)

IRREGULAR_PAST = _pairs(
    """
    hold:held show:showed grow:grew sell:sold spend:spent build:built buy:bought bring:brought catch:caught
    choose:chose cut:cut drink:drank drive:drove eat:ate fall:fell feel:felt fight:fought find:found fly:flew
    forget:forgot get:got give:gave go:went have:had hear:heard hide:hid hit:hit keep:kept know:knew lead:led
    leave:left lend:lent lose:lost make:made meet:met pay:paid put:put read:read ride:rode ring:rang run:ran
    say:said see:saw send:sent sing:sang sit:sat sleep:slept speak:spoke stand:stood steal:stole swim:swam
    take:took tell:told think:thought throw:threw understand:understood wake:woke wear:wore win:won write:wrote
    teach:taught cost:cost feed:fed shake:shook spin:spun swing:swung hang:hung mean:meant break:broke draw:drew
    quit:quit
    """
)

IRREGULAR_PLURAL = _pairs(
    """
    man:men woman:women child:children person:people mouse:mice foot:feet tooth:teeth life:lives wife:wives
    knife:knives leaf:leaves shelf:shelves half:halves fish:fish sheep:sheep
    """
)

ADJECTIVES = _words(
    """
    good new first last long great little own other old right big high different small large next early young
    important few public bad same able red blue green white black yellow brown pink purple orange gray happy sad
    tall short fast slow heavy light hot cold warm cool dry wet clean dirty full empty open closed hard soft easy
    difficult strong weak rich poor cheap expensive free busy ready late quiet loud bright dark deep wide narrow
    thick thin round flat straight smooth rough sharp sweet sour fresh raw wooden metal plastic golden beautiful
    pretty ugly nice kind mean smart clever funny serious angry tired hungry thirsty sick healthy safe dangerous
    careful brave afraid proud lucky famous popular special common rare normal strange simple complex real true
    false whole single double extra equal similar total average possible certain sure clear local national
    international American Asian human social political economic legal medical natural financial military religious
    modern ancient traditional original final main major minor recent current future past elderly male female
    little crowded outdoor indoor striped colorful large front back left upper lower daily weekly monthly yearly
    positive negative even odd prime whole consecutive distinct remaining entire several various necessary
    sufficient relevant general particular specific perfect terrible wonderful amazing
    """
)

ADVERBS = _words(
    """
    now then here there always never often sometimes usually again still already soon today tomorrow yesterday
    together quickly slowly carefully quietly loudly easily really very too also just only almost nearly exactly
    finally suddenly first later early late outside inside away back home alone ahead instead however therefore
    maybe perhaps probably certainly clearly simply actually recently currently originally initially equally
    altogether twice once daily directly completely especially particularly generally happily sadly well hard fast
    far everywhere somewhere
    """
)

PREPOSITIONS = _words(
    """
    in on at near with by for from to of behind under over beside through across around along against between into
    onto outside inside above below after before during without within toward upon about like past off down up
    """
)

CONJUNCTIONS = _words("and but because while when if so although since until before after unless or though as")

CALENDAR = _words(
    """
    Monday Friday Sunday Saturday Wednesday Tuesday Thursday May June July March April January December October
    September November August February Christmas
    """
)

# Small words and turns that the lists above leave out.
OTHERS = _words(
    """
    is was are were be been being am do does did done has had having will would can could should may might must
    shall not no yes only same such than that this these those which who whom whose what where why how with without
    me him them us mine yours hers theirs himself herself itself themselves myself yourself someone something
    anyone anything everyone everything nobody nothing everybody somebody either neither both whether per each via
    okay please thanks hello goodbye Mr Mrs Ms Dr USA America England China India Paris London given known needed
    used left sold spent bought made taken gone seen written eaten driven grown flown shown thrown worth already
    remaining additional next another further rather quite yet ever else apart according due people children men
    women feet teeth dozen dozens pair pairs times percent remainder cents miles pounds ounces minutes hours weeks
    months years days inches meters liters gallons grams kilograms points pieces slices pages boxes front top
    bottom middle side sides everyone older younger taller shorter bigger smaller larger faster slower cheaper
    higher lower longer better worse best worst least oldest youngest largest smallest highest greatest since thus
    hence because step first second third fourth fifth sixth final answer solution therefore wearing holding
    standing sitting walking playing looking watching talking riding smiling running jumping sleeping shirt jeans
    jacket hat clothing outfit costume sunglasses backpack skateboard bicycle motorcycle wheelchair
    """
)

NUMBER_WORDS = _words(
    """
    one two three four five six seven eight nine ten eleven twelve thirteen fifteen twenty thirty forty fifty
    hundred thousand million half
    """
)

QUANTITIES = _words("many much more less fewer several some any all both each every no another most enough")

# A slot names a list of WORDS and perhaps a form. Templates are drawn evenly, early words more often.
TEMPLATES = (
    "The {adjective} {noun} {verb:s} the {noun} {preposition} the {place}.",
    "A {person} in a {adjective} {noun} is {verb:ing} {preposition} the {place}.",
    "Two {person:s} are {verb:ing} a {adjective} {noun} while the {person} {verb:s} {adverb}.",
    "{name} {verb:ed} {number} {noun:s} and {number} {adjective} {noun:s} {preposition} the {place}.",
    "There {be} {word_number} {adjective} {noun:s} {preposition} the {place}, "
    "{conjunction} the {person} {verb:s} {adverb}.",
    "{adverb}, {name} {verb:ed} the {noun} {conjunction} {pronoun} {verb:ed} a {adjective} {noun}.",
    "How {quantity} {noun:s} did {name} {verb} in {number} days?",
    "If the {noun} costs ${number} and each {noun} costs ${number}, what is the {adjective} price of the {noun:s}?",
    "{name} {verb:s} {number} {noun:s} each {noun}. How much does {pronoun} {verb} in a {noun}?",
    "Each {noun} has {number} {noun:s}, so there are {number} * {number} = {number} {noun:s} in total.",
    "{pronoun} has {number}% of the {noun:s} left, which is {number}/{number} = {number} {noun:s} per {noun}.",
    "It takes {name} {number} minutes to {verb} the {noun} and twice as long to {verb} the {noun}.",
    "{name}'s {person} {verb:ed} half as many {noun:s} as {name} did, {conjunction} they {verb:ed} {number} more.",
    "A group of {person:s} {verb} {preposition} a {adjective} {place} with their {noun:s}.",
    "The {person} isn't {verb:ing}; {pronoun} doesn't want to {verb} the {noun}.",
    "Some {noun:s} that {verb} the {noun:s} are {adjective} or {adjective}, but none of them is {adjective}.",
    "All {person:s} who {verb} {adverb} will {verb} the {noun}, and they can't {verb} it {adverb}.",
    "What does the {adjective} {person} do when {possessive} {noun} has {verb:ed} {preposition} the {place}?",
    "Let x be the number of {noun:s}; then 2x + {number} = {number}, and therefore x = {number}.",
    "This means that {quantity} {noun} would have {verb:ed} {possessive} {noun}: it was too {adjective} to {verb}.",
    '"I {verb} the {noun} {adverb}," said the {person}, "and you should {verb} {possessive} {noun} too!"',
    "The total {noun} of the {noun:s} is {number} more than the {noun} of {word_number} {noun:s} altogether.",
    "{name} and {name} were {verb:ing} to the {place} to {verb} {possessive} {adjective} {noun}.",
    "Because of the {noun}, {quantity} {person:s} could not {verb} from the {place} to the {place}.",
    "The {noun} {verb:ing} {preposition} the {adjective} {noun} "
    "might be {adverb} {adjective} than {possessive} {noun}.",
    "{quantity} {objects} and {objects} were {verb:ed} {preposition} {containers} "
    "by the {person} at {number}:{number} pm.",
    "Which of the {noun:s} {verb:s} the {noun}, where the {noun} must be {adjective}?",
    "She is {verb:ing} her {adjective} {noun} for him, whose {noun} he had {adverb} {verb:ed} there.",
    "We know that {number} + {number} = {number} (the {noun} of the {noun}), so our {noun} is {number}.",
    "On {calendar} {name} {other} {verb} the {noun} {preposition} {calendar}, {other} {other} a {noun}.",
    "The {adjective} {noun} {other} {other} {adverb} {preposition} {other} {noun:s} {other} the {person}.",
    "The {person:s} have been {verb:ing} {preposition} each other since the {noun} of the {noun}.",
)
WORDS = {
    "name": NAMES,
    "objects": OBJECTS,
    "containers": CONTAINERS,
    "person": PEOPLE,
    "place": PLACES,
    "noun": NOUNS,
    "verb": VERBS,
    "adjective": ADJECTIVES,
    "adverb": ADVERBS,
    "preposition": PREPOSITIONS,
    "conjunction": CONJUNCTIONS,
    "word_number": NUMBER_WORDS,
    "quantity": QUANTITIES,
    "pronoun": _words("he she it they we you I"),
    "calendar": CALENDAR,
    "other": OTHERS,
    "possessive": _words("his her their its our your my"),
    "be": _words("are were"),
}


def sentence(random: Random) -> str:
    """One English sentence of common words: roughly grammatical, without meaning.

    Example:
        >>> sentence(Random(0))
        'The cage multiplying by the deep salt might be simply orange than their wage.'
    """
    text = re.sub(r"{(\w+):?(\w*)}", lambda slot: _fill(slot[1], slot[2], random), random.choice(TEMPLATES))
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text[0].upper() + text[1:])


def _fill(slot: str, form: str, random: Random) -> str:
    if slot == "number":
        return str(random.randint(1, 10 ** random.randint(1, 3)))
    words = WORDS[slot]
    word = words[int(len(words) * random.random() ** 1.5)]
    return inflect(word, form) if form else word


def inflect(word: str, form: str) -> str:
    """The `s`, `ed` or `ing` form of a verb, or the plural of a noun.

    Example:
        >>> inflect("carry", "ed"), inflect("stop", "ing"), inflect("box", "s"), inflect("give", "ed")
        ('carried', 'stopping', 'boxes', 'gave')
    """
    if form == "ed" and word in IRREGULAR_PAST:
        return IRREGULAR_PAST[word]
    if form == "s" and word in IRREGULAR_PLURAL:
        return IRREGULAR_PLURAL[word]
    if re.search("[^aeiou]y$", word) and form != "ing":
        return word[:-1] + {"s": "ies", "ed": "ied"}[form]
    if form == "s":
        return word + ("es" if re.search("(s|x|z|ch|sh|go)$", word) else "s")
    if re.search("[^e]e$", word):
        return word[:-1] + form
    doubled = re.search("^[^aeiou]*[aeiou][bdgmnpt]$", word)
    return word + word[-1] * bool(doubled) + form
