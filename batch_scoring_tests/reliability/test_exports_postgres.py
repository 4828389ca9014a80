from batch_scoring_tests.postgres_server import Server
from batch_scoring_tests.reliability.export_trials import TRIALS, Size, run
from batch_scoring_tests.reliability.exports_postgres import PostgresPlace


def test_rows_are_never_missing_doubled_or_mixed(postgres: Server) -> None:
    reports = list(run(PostgresPlace(postgres), Size(repeats=1, rows=400)))
    assert [f"{report.kind}: {violation}" for report in reports for violation in report.violations] == []
    assert sum(report.trials for report in reports) >= len(TRIALS)
