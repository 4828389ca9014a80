"""What customers write: sentences by language and topic, from which `data.py` makes tickets.

`(one|other)` stands for either of its parts, `{product}` and the like for a word that `data.py` draws. German ones have
their article in `{der_product}`, `{Der_product}` at the beginning of a sentence, and in the accusative `{den_product}`.
"""

from typing import Literal

Language = Literal["en", "de"]
Topic = Literal["delivery", "returns", "payment", "defect", "account", "advice", "recall"]

PRODUCTS: dict[Language, tuple[str, ...]] = {
    "en": (
        "coffee machine",
        "power bank",
        "headphones",
        "kettle",
        "desk lamp",
        "vacuum cleaner",
        "toaster",
        "speaker",
        "keyboard",
        "hair dryer",
        "fan heater",
        "electric toothbrush",
        "monitor",
        "air fryer",
    ),
    "de": (
        "die Kaffeemaschine",
        "die Powerbank",
        "der Kopfhörer",
        "der Wasserkocher",
        "die Schreibtischlampe",
        "der Staubsauger",
        "der Toaster",
        "der Lautsprecher",
        "die Tastatur",
        "der Föhn",
        "der Heizlüfter",
        "die elektrische Zahnbürste",
        "der Bildschirm",
        "die Heißluftfritteuse",
    ),
}

COLOURS: dict[Language, tuple[str, ...]] = {
    "en": ("black", "white", "red", "blue", "silver"),
    "de": ("schwarz", "weiß", "rot", "blau", "silber"),
}

WEEKDAYS: dict[Language, tuple[str, ...]] = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"),
    "de": ("Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag"),
}

CITIES = ("Leeds", "Bristol", "Hamburg", "Köln", "Graz", "Dublin", "Leipzig", "Zürich", "Glasgow", "München")

NAMES = (
    "Anna",
    "Tom Becker",
    "M. Schulz",
    "Priya",
    "J. Murphy",
    "Lena",
    "Oliver Grant",
    "K. Yılmaz",
    "Sofie",
    "R. Novak",
)

GREETINGS: dict[Language, tuple[str, ...]] = {
    "en": ("Hello,", "Hi,", "Dear support team,", "Good morning,", "Hi there,", "To whom it may concern,"),
    "de": ("Hallo,", "Guten Tag,", "Sehr geehrte Damen und Herren,", "Liebes Team,", "Moin,"),
}

CLOSINGS: dict[Language, tuple[str, ...]] = {
    "en": ("Thanks, {name}", "Kind regards, {name}", "Best, {name}", "Many thanks", "Regards, {name}"),
    "de": (
        "Danke, {name}",
        "Mit freundlichen Grüßen, {name}",
        "Viele Grüße, {name}",
        "Vielen Dank im Voraus",
        "LG {name}",
    ),
}

FILLERS: dict[Language, tuple[str, ...]] = {
    "en": (
        "(My order number is|This is about order) {order}.",
        "I have been a customer for years and (never had a problem|always liked your shop).",
        "Please (let me know|tell me) what to do next.",
        "I tried to call you, but I was on hold for {number} minutes.",
        "Can somebody please (look into this|help me with this)?",
        "I look forward to your (answer|reply).",
        "This is rather urgent, as I am away from next week.",
    ),
    "de": (
        "(Meine Bestellnummer ist|Es geht um die Bestellung) {order}.",
        "Ich bin seit Jahren Kunde und (hatte nie Probleme|war immer zufrieden).",
        "Bitte (sagen Sie mir|teilen Sie mir mit), wie es weitergeht.",
        "Telefonisch hing ich {number} Minuten in der Warteschleife.",
        "Kann sich das bitte (jemand|mal jemand) ansehen?",
        "Ich freue mich auf Ihre (Antwort|Rückmeldung).",
        "Es ist etwas dringend, ab nächster Woche bin ich verreist.",
    ),
}

VAGUE: dict[Language, tuple[str, ...]] = {
    "en": (
        "I wrote to you last week and nobody has answered.",
        "Please call me back (today|tomorrow|as soon as you can).",
        "This is about my {product}, as I explained on the phone.",
        "See the attached (photo|screenshot).",
        "Your colleague promised to sort this out, and nothing happened.",
        "I am really disappointed with (this|your service).",
        "Is there any news about my case?",
    ),
    "de": (
        "Ich habe letzte Woche geschrieben und keine Antwort bekommen.",
        "Bitte rufen Sie mich (heute|morgen|möglichst bald) zurück.",
        "Es geht um {den_product}, wie am Telefon besprochen.",
        "Siehe (Foto|Bildschirmfoto) im Anhang.",
        "Ihr Kollege wollte sich kümmern, passiert ist nichts.",
        "Ich bin wirklich enttäuscht von (Ihnen|Ihrem Service).",
        "Gibt es Neuigkeiten zu meinem Anliegen?",
    ),
}

VAGUE_SUBJECTS: dict[Language, tuple[str, ...]] = {
    "en": ("Question", "Order {order}", "Please help", "My {product}", "Urgent", "Complaint", "Re: your message"),
    "de": (
        "Frage",
        "Bestellung {order}",
        "Bitte um Hilfe",
        "{product}",
        "Dringend",
        "Beschwerde",
        "AW: Ihre Nachricht",
    ),
}

SUBJECTS: dict[Language, dict[Topic, tuple[str, ...]]] = {
    "en": {
        "delivery": (
            "Where is my parcel?",
            "Late delivery of order {order}",
            "Tracking does not move",
            "Not delivered",
        ),
        "returns": ("Return of {product}", "I want to send it back", "No return label", "Exchange for another colour"),
        "payment": ("Charged twice", "Wrong amount on invoice {order}", "Refund missing", "Problem with my payment"),
        "defect": ("{product} stopped working", "Broken {product}", "Faulty after {number} days", "Warranty claim"),
        "account": ("Cannot log in", "Password reset", "Change my address", "Delete my account"),
        "advice": (
            "Question before I order",
            "Does the {product} fit?",
            "Is the {product} in stock?",
            "Which {product}?",
        ),
        "recall": ("Recall of the {recalled}", "Safety notice about the {recalled}", "Is mine affected?"),
    },
    "de": {
        "delivery": ("Wo ist mein Paket?", "Lieferung {order} verspätet", "Sendung steht still", "Nichts angekommen"),
        "returns": ("Rückgabe {product}", "Ich möchte widerrufen", "Kein Rücksendeetikett", "Umtausch in andere Farbe"),
        "payment": (
            "Doppelt abgebucht",
            "Falscher Betrag, Rechnung {order}",
            "Erstattung fehlt",
            "Problem beim Bezahlen",
        ),
        "defect": (
            "{product} funktioniert nicht mehr",
            "{product} defekt",
            "Nach {number} Tagen kaputt",
            "Garantiefall",
        ),
        "account": ("Anmeldung geht nicht", "Passwort vergessen", "Neue Adresse", "Konto löschen"),
        "advice": ("Frage vor dem Kauf", "{product}: passt das?", "{product} lieferbar?", "Beratung {product}"),
        "recall": ("Rückruf {recalled}", "Sicherheitshinweis zur {recalled}", "Ist meine betroffen?"),
    },
}

DECIMAL: dict[Language, str] = {"en": ".", "de": ","}

RECALLED: dict[Language, str] = {"en": "power bank", "de": "Powerbank"}

SENTENCES: dict[Language, dict[Topic, tuple[str, ...]]] = {
    "en": {
        "delivery": (
            "The parcel was (due|promised) {number} days ago and has not arrived.",
            "Tracking says it has been in {city} since {weekday}.",
            "The courier (says|claims) he delivered it, but nobody was at home and there is no card.",
            "It was left with a neighbour whom I do not know.",
            "Could you tell me when my {product} will be (shipped|delivered)?",
            "Only one of two boxes came, the {product} is missing.",
            "The shipping status has not changed for {number} days.",
            "Please send it to the pick-up point in {city} instead.",
            "It went back to the sender because of a wrong house number.",
            "I paid for express shipping and am still waiting.",
        ),
        "returns": (
            "I would like to return the {product}, it is not what I expected.",
            "How do I get a return label?",
            "I sent the {product} back {number} days ago and have heard nothing.",
            "The {product} is too (big|small|loud) for us, can I exchange it?",
            "You sent me the wrong colour, I ordered {colour}.",
            "Can I bring it back to the shop in {city}?",
            "It is unopened and still in its box.",
            "Is it still possible to return after {number} days?",
            "I want my money back, please.",
            "I received a {product} that I did not order.",
        ),
        "payment": (
            "You (charged|debited) me twice for the same order.",
            "The invoice says {amount} euros, but I agreed to less.",
            "My refund of {amount} euros has not arrived.",
            "My card was declined although there is enough money on it.",
            "The voucher was not taken off at the checkout.",
            "I need an invoice with my company's name and VAT number.",
            "I got a reminder, but I paid {number} days ago.",
            "Can I pay in instalments?",
            "PayPal shows the payment, your page says unpaid.",
            "I want my money back, please.",
        ),
        "defect": (
            "The {product} stopped working after {number} days.",
            "It does not (switch on|start|charge) any more.",
            "The {product} makes a strange noise and smells burnt.",
            "The display (flickers|stays dark).",
            "One of the buttons broke off the first time I used it.",
            "It was broken when I opened the box.",
            "I tried another socket and a reset, nothing helps.",
            "Is this covered by the warranty?",
            "Can you repair it or send me a new {product}?",
            "The battery is empty after {number} minutes.",
        ),
        "account": (
            "I cannot log in, it says my password is wrong.",
            "The e-mail to reset my password never arrives.",
            "Please change my address to {city}.",
            "I want to delete my account and all my data.",
            "My loyalty points are gone.",
            "How do I unsubscribe from the newsletter?",
            "The app logs me out every time I open it.",
            "Somebody else seems to have used my account.",
            "I have a new phone number and cannot confirm the code.",
            "My orders are not shown in my profile.",
        ),
        "advice": (
            "Does the {product} also work with {voltage} volts?",
            "Which {product} would you recommend for a small flat?",
            "When will the {product} in {colour} be back in stock?",
            "What is the difference between the two models of the {product}?",
            "Is there a discount if I buy {number} of them?",
            "How long is the cable of the {product}?",
            "Can I get spare parts for it later?",
            "Do you ship to {city} and what does it cost?",
            "Is the {product} quiet enough for a bedroom?",
            "Does it come with a charger?",
        ),
        "recall": (
            "I read about the recall of your {recalled} in the news.",
            "Is serial number {order} affected by the recall?",
            "Your safety notice says I must not charge the {recalled} any more.",
            "It gets very hot, is there a risk of fire?",
            "How do I hand in the recalled {recalled}, and what do I get for it?",
            "I bought it {number} months ago, does the recall apply to me?",
            "May I throw the {recalled} away or is that dangerous?",
            "The form for the recall on your website does not take my serial number.",
        ),
    },
    "de": {
        "delivery": (
            "Das Paket sollte vor {number} Tagen (kommen|da sein) und ist noch immer unterwegs.",
            "Laut Sendungsverfolgung liegt es seit {weekday} in {city}.",
            "Der Bote behauptet, er habe zugestellt, aber es war niemand da.",
            "Es wurde bei einem Nachbarn abgegeben, den ich nicht kenne.",
            "Wann wird {der_product} (verschickt|geliefert)?",
            "Nur eines von zwei Paketen kam an, {der_product} fehlt.",
            "Der Status der Sendung ist seit {number} Tagen unverändert.",
            "Bitte schicken Sie es an die Abholstation in {city}.",
            "Es ging wegen einer falschen Hausnummer zurück an den Absender.",
            "Ich habe Expressversand bezahlt und warte immer noch.",
        ),
        "returns": (
            "Ich möchte {den_product} zurückgeben, es ist nicht wie erwartet.",
            "Wie bekomme ich ein Rücksendeetikett?",
            "Ich habe {den_product} vor {number} Tagen zurückgeschickt und nichts gehört.",
            "{Der_product} ist zu (groß|klein|laut), kann ich umtauschen?",
            "Sie haben die falsche Farbe geschickt, bestellt war {colour}.",
            "Kann ich es in der Filiale in {city} abgeben?",
            "Es ist ungeöffnet und noch originalverpackt.",
            "Kann ich nach {number} Tagen noch widerrufen?",
            "Ich möchte bitte mein Geld zurück.",
            "Sie haben {den_product} geschickt, bestellt hatte ich etwas anderes.",
        ),
        "payment": (
            "Sie haben dieselbe Bestellung doppelt abgebucht.",
            "Auf der Rechnung stehen {amount} Euro, vereinbart war weniger.",
            "Meine Erstattung über {amount} Euro ist nicht angekommen.",
            "Meine Karte wird abgelehnt, obwohl sie gedeckt ist.",
            "Der Gutschein wurde an der Kasse nicht abgezogen.",
            "Ich brauche eine Rechnung mit Firmenname und Umsatzsteuernummer.",
            "Ich habe eine Mahnung bekommen, aber vor {number} Tagen bezahlt.",
            "Kann ich in Raten zahlen?",
            "PayPal zeigt die Zahlung, bei Ihnen steht unbezahlt.",
            "Ich möchte bitte mein Geld zurück.",
        ),
        "defect": (
            "{Der_product} ist nach {number} Tagen ausgefallen.",
            "Es lässt sich nicht mehr (einschalten|starten|aufladen).",
            "{Der_product} macht komische Geräusche und riecht verbrannt.",
            "Die Anzeige (flackert|bleibt dunkel).",
            "Ein Knopf ist beim ersten Benutzen abgebrochen.",
            "Es war schon beim Auspacken kaputt.",
            "Andere Steckdose und Neustart habe ich probiert, nichts hilft.",
            "Fällt das unter die Garantie?",
            "Können Sie {den_product} reparieren oder ersetzen?",
            "Der Akku ist nach {number} Minuten leer.",
        ),
        "account": (
            "Ich kann mich nicht anmelden, angeblich ist das Passwort falsch.",
            "Die Mail zum Zurücksetzen des Passworts kommt nie an.",
            "Bitte ändern Sie meine Adresse auf {city}.",
            "Ich möchte mein Konto und alle Daten löschen.",
            "Meine Treuepunkte sind weg.",
            "Wie bestelle ich den Newsletter ab?",
            "Die App meldet mich jedes Mal ab.",
            "Jemand anderes hat wohl mein Konto benutzt.",
            "Ich habe eine neue Nummer und kann den Code nicht bestätigen.",
            "Meine Bestellungen werden im Profil nicht angezeigt.",
        ),
        "advice": (
            "Läuft {der_product} auch mit {voltage} Volt?",
            "Welches Modell empfehlen Sie für eine kleine Wohnung?",
            "Wann ist {der_product} in {colour} wieder lieferbar?",
            "Was ist der Unterschied zwischen den beiden Modellen?",
            "Gibt es Rabatt, wenn ich {number} Stück nehme?",
            "Wie lang ist das Kabel?",
            "Bekommt man später noch Ersatzteile?",
            "Liefern Sie nach {city} und was kostet das?",
            "Ist {der_product} leise genug fürs Schlafzimmer?",
            "Ist ein Ladegerät dabei?",
        ),
        "recall": (
            "Ich habe vom Rückruf Ihrer {recalled} in den Nachrichten gelesen.",
            "Ist die Seriennummer {order} vom Rückruf betroffen?",
            "Laut Sicherheitshinweis darf ich die {recalled} nicht mehr laden.",
            "Sie wird sehr heiß, besteht Brandgefahr?",
            "Wo gebe ich die zurückgerufene {recalled} ab, und was bekomme ich dafür?",
            "Ich habe sie vor {number} Monaten gekauft, gilt der Rückruf für mich?",
            "Darf ich die {recalled} wegwerfen oder ist das gefährlich?",
            "Das Rückrufformular nimmt meine Seriennummer nicht an.",
        ),
    },
}
