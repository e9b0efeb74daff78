"""Where the demo's people live, what they are called and which telephone numbers nobody has. Used by `make_contacts.py`."""

from dataclasses import dataclass

# Phone numbers reserved for fiction: 555-01xx in North America; Ofcom, BNetzA, Arcep, ACMA and PTS for the others.
_NORTH_AMERICA = ("({area}) 555-01{two}", "{area}-555-01{two}", "+1 {area} 555 01{two}", "{area}.555.01{two}")


@dataclass(frozen=True)
class Place:
    """Names are written `as the person writes it|in ASCII`, or once when both are the same but for accents."""

    country: str
    locales: tuple[str, ...]
    zones: tuple[tuple[str, str, str, str], ...]  # time zone, region, postal code with # for digits, telephone area
    first_names: str
    last_names: str
    phones: tuple[str, ...] = ()
    weight: int = 10


PLACES = (
    Place(
        "US",
        ("en-US", "en_US", "es-US", "en"),
        (
            ("America/New_York", "NY", "100##", "212"),
            ("America/Chicago", "IL", "606##", "312"),
            ("America/Denver", "CO", "802##", "303"),
            ("America/Phoenix", "AZ", "850##", "602"),
            ("America/Los_Angeles", "CA", "900##", "213"),
            ("America/Anchorage", "AK", "995##", "907"),
            ("Pacific/Honolulu", "HI", "968##", "808"),
        ),
        "Ada Grace Marcus Latoya DeShawn Emily Hunter José Guadalupe Mary-Jo Ty Wilhelmina Xiomara J.R.",
        "Brooks O'Neill Washington Nguyen García|garcia Lindqvist St.~James Van~Buren Okafor Smith,~Jr. Kealoha",
        _NORTH_AMERICA,
        22,
    ),
    Place(
        "CA",
        ("en-CA", "fr-CA"),
        (
            ("America/Toronto", "ON", "M5V 2T6", "416"),
            ("America/Vancouver", "BC", "V6B 1A1", "604"),
            ("America/St_Johns", "NL", "A1C 5M2", "709"),
            ("America/Montreal", "QC", "H2Y 1C6", "514"),
        ),
        "Émilie Benoît Noémie Kiran Callum Océane Harper",
        "Tremblay Bélanger MacIsaac Singh Côté Fraser Lévesque-Roy",
        _NORTH_AMERICA,
        8,
    ),
    Place(
        "GB",
        ("en-GB",),
        (("Europe/London", "England", "EC1A 1BB", "020 7946 0"), ("Europe/London", "Scotland", "EH1 1YZ", "0131 496 0")),
        "Siân Oliver Imogen Aoife Rhys Priya Hamish Zoë",
        "Featherstonehaugh Ap~Rhys O’Connor|oconnor Clarke Patel Macdonald Worthington-Smythe",
        ("{area}{three}",),
        9,
    ),
    Place(
        "DE",
        ("de-DE", "de", "de_DE"),
        (("Europe/Berlin", "Berlin", "10###", "030 23125"), ("Europe/Berlin", "Bayern", "80###", "089 99998")),
        "Jürgen|juergen Anneliese Käthe|kaethe Søren|soeren Zeynep Friederike Björn|bjoern Max",
        "Müller|mueller Weiß|weiss von~der~Heide Öztürk|oeztuerk Groß-Gerau|gross-gerau Schäfer|schaefer Lüdenscheidt|luedenscheidt",
        ("{area} {three}", "{area}{three}"),
        11,
    ),
    Place(
        "AT",
        ("de-AT",),
        (("Europe/Vienna", "Wien", "1010", ""),),
        "Resi Leopold Vroni",
        "Hölzl|hoelzl Gruber Wögerbauer|woegerbauer",
        (),
        3,
    ),
    Place(
        "CH",
        ("de-CH", "fr-CH", "it-CH", "rm-CH"),
        (("Europe/Zurich", "ZH", "8001", ""), ("Europe/Zurich", "VD", "1003", "")),
        "Urs Beatrice Flurina Loïc",
        "Ammann Crüger|crueger Gygax Bianchi",
        (),
        4,
    ),
    Place(
        "FR",
        ("fr-FR", "fr"),
        (("Europe/Paris", "Île-de-France", "750##", "01 99 00"), ("Europe/Paris", "Bretagne", "350##", "02 61 91")),
        "Chloé Aurélien François Maëlle Jean-Baptiste Noël Inès",
        "Lefèvre D’Angelo|dangelo Nguyen Le~Guen Beauséjour Garçon",
        ("{area} 0{one} {two}",),
        8,
    ),
    Place(
        "ES",
        ("es-ES", "ca-ES", "eu-ES"),
        (("Europe/Madrid", "Cataluña", "080##", ""), ("Atlantic/Canary", "Canarias", "350##", "")),
        "Íñigo Begoña María~José Ángel Núria",
        "Muñoz Ibáñez~López Etxeberria de~la~Peña",
        (),
        6,
    ),
    Place(
        "IT",
        ("it-IT",),
        (("Europe/Rome", "Lazio", "001##", ""),),
        "Niccolò Giulia Cosimo Désirée",
        "D'Amico Lo~Presti Però Bianchini",
        (),
        4,
    ),
    Place(
        "SE",
        ("sv-SE",),
        (("Europe/Stockholm", "Stockholm", "111 ##", "08-465 004 "),),
        "Åsa Björn Märta Östen",
        "Ångström Sjöqvist Häggkvist Öberg",
        ("{area}{two}",),
        4,
    ),
    Place(
        "PL",
        ("pl-PL",),
        (("Europe/Warsaw", "Mazowieckie", "00-###", ""),),
        "Łukasz|lukasz Małgorzata|malgorzata Zbigniew Święta",
        "Wójcik Błaszczyk|blaszczyk Żak Grzęda",
        (),
        4,
    ),
    Place(
        "GR",
        ("el-GR",),
        (("Europe/Athens", "Αττική", "105 ##", ""),),
        "Ελένη|eleni Γιώργος|giorgos Ξένια|xenia",
        "Παπαδοπούλου|papadopoulou Αλεξίου|alexiou Ζαχαρίας|zacharias",
        (),
        3,
    ),
    Place(
        "UA",
        ("uk-UA",),
        (("Europe/Kyiv", "Київ", "01###", ""),),
        "Олена|olena Тарас|taras Соломія|solomiia",
        "Шевчук|shevchuk Грищенко|hryshchenko",
        (),
        3,
    ),
    Place(
        "TR",
        ("tr-TR",),
        (("Europe/Istanbul", "İstanbul", "34###", ""),),
        "Işıl|isil Gökçe Şükrü İbrahim|ibrahim",
        "Yıldız|yildiz Çelik Öztürk",
        (),
        3,
    ),
    Place("IL", ("he-IL",), (("Asia/Jerusalem", "תל אביב", "61###", ""),), "נועה|noa איתן|eitan", "לוי|levi מזרחי|mizrahi", (), 2),
    Place(
        "EG",
        ("ar-EG",),
        (("Africa/Cairo", "القاهرة", "115##", ""),),
        "ليلى|layla يوسف|youssef مريم|mariam",
        "حسن|hassan عبد~الله|abdallah",
        (),
        2,
    ),
    Place(
        "IN",
        ("en-IN", "hi-IN", "ta-IN"),
        (("Asia/Kolkata", "Maharashtra", "4000##", ""),),
        "Ananya Rohan अनन्या|ananya Venkata~Sai",
        "Iyer Chaudhary शर्मा|sharma Subramaniam",
        (),
        6,
    ),
    Place("NP", ("ne-NP",), (("Asia/Kathmandu", "Bagmati", "446##", ""),), "Sunita Bishal", "Gurung Thapa", (), 1),
    Place(
        "JP",
        ("ja-JP",),
        (("Asia/Tokyo", "東京都", "100-00##", ""),),
        "さくら|sakura 健太|kenta 美咲|misaki",
        "佐藤|sato 高橋|takahashi 小野寺|onodera",
        (),
        5,
    ),
    Place(
        "CN", ("zh-CN", "zh-Hans-CN"), (("Asia/Shanghai", "上海", "2000##", ""),), "小明|xiaoming 丽娟|lijuan", "王|wang 欧阳|ouyang", (), 3
    ),
    Place("KR", ("ko-KR",), (("Asia/Seoul", "서울", "045##", ""),), "지우|jiwoo 민준|minjun", "김|kim 남궁|namgung", (), 2),
    Place(
        "AU",
        ("en-AU",),
        (
            ("Australia/Sydney", "NSW", "20##", "(02) 5550"),
            ("Australia/Adelaide", "SA", "50##", "(08) 5550"),
            ("Australia/Lord_Howe", "NSW", "2898", "(02) 7010"),
        ),
        "Kylie Bruce Matilda Lachlan",
        "McKenzie Papadakis Nguyen-Hall",
        ("{area} 0{three}",),
        5,
    ),
    Place(
        "NZ",
        ("en-NZ", "mi-NZ"),
        (("Pacific/Auckland", "Auckland", "10##", ""), ("Pacific/Chatham", "Chatham", "8016", "")),
        "Māia Tāne Isla",
        "Ngata Te~Rangi Wilson",
        (),
        2,
    ),
    Place(
        "BR",
        ("pt-BR", "pt_BR"),
        (("America/Sao_Paulo", "SP", "01###-000", ""), ("America/Manaus", "AM", "69###-000", "")),
        "João Conceição Thaís Antônio",
        "da~Silva~e~Souza Guimarães Araújo",
        (),
        6,
    ),
    Place("MX", ("es-MX",), (("America/Mexico_City", "CDMX", "06###", ""),), "Xóchitl Ramón Lucía", "Hernández Ñáñez Cuauhtémoc", (), 3),
    Place(
        "ZA",
        ("en-ZA", "zu-ZA", "af-ZA"),
        (("Africa/Johannesburg", "Gauteng", "20##", ""),),
        "Nomvula Thabo Elsabé",
        "Dlamini Van~der~Merwe Mokoena",
        (),
        3,
    ),
    Place("NG", ("en-NG",), (("Africa/Lagos", "Lagos", "1001##", ""),), "Chidinma Olúwaṣeun|oluwaseun", "Adébáyọ̀|adebayo Okonkwo", (), 2),
    Place(
        "IS", ("is-IS",), (("Atlantic/Reykjavik", "", "1##", ""),), "Þórdís|thordis Ægir|aegir", "Jónsdóttir Guðmundsson|gudmundsson", (), 2
    ),
    Place("VN", ("vi-VN",), (("Asia/Ho_Chi_Minh", "Hồ Chí Minh", "7000##", ""),), "Thảo Đức|duc", "Nguyễn Trần Lê", (), 2),
)
