"""`make bench-serving`: our service and its peers under load, and the table in benchmarks/RESULTS.md.

    make bench-serving                                                   everything
    make bench-serving ARGS='--match "resnet50 fp32" --columns 1,8'      a part; the rest of the table stays
    make bench-serving ARGS='--no-matches --overload "resnet50 fp32"'    overload only

It installs the peers into a virtual environment of their own, exports the networks, prints how long it will take, and
then wants the machine for itself. Everything it makes is kept in a cache folder and made again only when it must.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.serving.campaign import COLUMNS, MATCHES, Campaign, Plan, known
from benchmarks.serving.duel import Arena
from benchmarks.serving.progress import log
from benchmarks.serving.reports.results import ROOT, Results
from benchmarks.serving.servers.environment import peers_python
from benchmarks.serving.servers.servers import PEERS
from benchmarks.serving.servers.workload import NETWORKS, PRECISIONS
from service.system.cache import cache_root

_PAGE = Path(__file__).parents[1] / "RESULTS.md"
_SHARED_PHOTOS = ROOT.parent / "shared" / "data" / "photos"
_WORKLOADS = tuple(f"{network} {precision}" for precision in PRECISIONS for network in NETWORKS)


def main() -> None:
    """Measure what the command line asks for. Exits with 1 and one line for a name that does not exist."""
    options = _parser().parse_args()
    try:
        plan = _plan(options)
    except ValueError as error:
        sys.exit(f"bench-serving: {error}")
    log(f"about {plan.estimate_s() / 60:.0f} minutes, once peers and models are there")
    arena = Arena(peers_python(options.peers_venv), options.cache)
    results = Results(options.page.with_name("results.json"))
    results.begin(_without_places(options))
    campaign = Campaign(plan, arena, results, options.photos, options.page)
    campaign.run()
    for line in campaign.left_out:
        sys.stdout.write(f"left out: {line}\n")
    sys.stdout.write(f"written: {options.page}\n")


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        matches=[] if options.no_matches else known(options.match or MATCHES, MATCHES, "match"),
        peers=known(_names(options.peers), tuple(PEERS), "peer"),
        columns=[int(column) for column in options.columns.split(",")],
        pairs=options.pairs,
        seconds=options.seconds,
        overload=[] if options.no_overload else known(options.overload or _WORKLOADS[:2], _WORKLOADS, "network"),
        overload_peers=known(_names(options.overload_peers), tuple(PEERS), "peer"),
        overload_rounds=options.overload_rounds,
        overload_seconds=options.overload_seconds,
    )


def _without_places(options: argparse.Namespace) -> list[str]:
    """Return the given options as arguments again, without the folders of this machine."""
    parser = _parser()
    asked = []
    for name, value in vars(options).items():
        if value == parser.get_default(name) or isinstance(value, Path):
            continue
        flag = "--" + name.replace("_", "-")
        asked += [
            flag if each is True else f'{flag} "{each}"' for each in (value if isinstance(value, list) else [value])
        ]
    return asked


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _parser() -> argparse.ArgumentParser:
    cache = cache_root() / "benchmarks"
    parser = argparse.ArgumentParser(prog="bench-serving", description="Our service and its peers under load.")
    add = parser.add_argument
    add("--match", action="append", help=f"one of: {', '.join(MATCHES)}; may be repeated; default: all")
    add("--no-matches", action="store_true", help="no throughput, only overload")
    add("--peers", default=",".join(PEERS), help="commas between several; default: %(default)s")
    add("--columns", default=",".join(map(str, COLUMNS)), help="concurrent clients; default: %(default)s")
    add("--pairs", type=int, default=5, help="alternating pairs against each contender; default: %(default)s")
    add("--seconds", type=int, default=4, help="of each turn; default: %(default)s")
    add("--overload", action="append", help=f"one of: {', '.join(_WORKLOADS)}; default: the first two")
    add("--no-overload", action="store_true", help="no overload, only throughput")
    add("--overload-peers", default=",".join(PEERS), help="commas between several, or nothing; default: %(default)s")
    add("--overload-rounds", type=int, default=3, help="default: %(default)s")
    add("--overload-seconds", type=int, default=10, help="of each stage; default: %(default)s")
    add("--photos", type=Path, default=_SHARED_PHOTOS if _SHARED_PHOTOS.is_dir() else None, help="folder of JPEGs")
    add("--cache", type=Path, default=cache, help="for models, images and logs; default: %(default)s")
    add(
        "--peers-venv",
        type=Path,
        default=os.environ.get("BENCHMARK_PEERS") or cache / "peers",
        help="where the peers are installed [BENCHMARK_PEERS]; default: %(default)s",
    )
    add("--page", type=Path, default=_PAGE, help="the table; results.json is kept beside it")
    return parser


if __name__ == "__main__":
    main()
