"""A table of the Telco churn kind, as strangers bring it: 21 columns, most of them categories, blanks for numbers."""

import csv
import io

import numpy as np

_METHODS = ("Electronic check", "Mailed check", "Bank transfer (automatic)", "Credit card (automatic)")
_EXTRAS = ("OnlineSecurity", "OnlineBackup", "DeviceProtection", "TechSupport", "StreamingTV", "StreamingMovies")


def customers(count: int = 7_043, seed: int = 0, blanks: int = 11) -> list[dict[str, object]]:
    """Return customers whose risk of leaving depends on contract, tenure, internet and charges."""
    random = np.random.default_rng(seed)

    def pick(words: tuple[str, ...], shares: tuple[float, ...]) -> list[str]:
        return [str(word) for word in random.choice(words, count, p=shares)]

    contract = pick(("Month-to-month", "One year", "Two year"), (0.55, 0.21, 0.24))
    internet = pick(("DSL", "Fiber optic", "No"), (0.34, 0.44, 0.22))
    tenure = random.integers(1, 73, count)
    tenure[random.choice(count, blanks, replace=False)] = 0
    charges = np.round(18 + 30 * (np.array(internet) == "DSL") + 60 * (np.array(internet) == "Fiber optic"), 2)
    charges = np.round(charges + random.uniform(0, 35, count), 2)
    risk = (
        1.2 * (np.array(contract) == "Month-to-month") + 0.9 * (np.array(internet) == "Fiber optic") - tenure / 30 - 1.1
    )
    leaves = random.random(count) < 1 / (1 + np.exp(-1.5 * risk))
    phone = pick(("Yes", "No"), (0.9, 0.1))
    found: dict[str, list[object]] = {
        "customerID": [f"{n * 7919 % 10_000:04d}-{chr(65 + n % 26)}{n:05d}" for n in range(count)],
        "gender": [*pick(("Male", "Female"), (0.5, 0.5))],
        "SeniorCitizen": [*map(int, random.random(count) < 0.16)],
        "Partner": [*pick(("Yes", "No"), (0.48, 0.52))],
        "Dependents": [*pick(("Yes", "No"), (0.3, 0.7))],
        "tenure": [*map(int, tenure)],
        "PhoneService": [*phone],
        "MultipleLines": [
            word if had == "Yes" else "No phone service"
            for had, word in zip(phone, pick(("Yes", "No"), (0.47, 0.53)), strict=True)
        ],
        "InternetService": [*internet],
        **{
            name: [
                word if had != "No" else "No internet service"
                for had, word in zip(internet, pick(("Yes", "No"), (0.45, 0.55)), strict=True)
            ]
            for name in _EXTRAS
        },
        "Contract": [*contract],
        "PaperlessBilling": [*pick(("Yes", "No"), (0.6, 0.4))],
        "PaymentMethod": [*pick(_METHODS, (0.34, 0.22, 0.22, 0.22))],
        "MonthlyCharges": [f"{charge:g}" for charge in charges],
        "TotalCharges": [
            f"{charge * months:g}" if months else " " for charge, months in zip(charges, tenure, strict=True)
        ],
        "Churn": ["Yes" if gone else "No" for gone in leaves],
    }
    return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]


def as_csv(rows: list[dict[str, object]], delimiter: str = ",") -> str:
    """Return rows as a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
