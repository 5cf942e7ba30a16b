"""Faults by chance on a running service, and what must hold after each: `python -m tests.service.chaos --seed 1`.

The same seed gives the same faults in the same order; how long each takes depends on the machine. Checked after each:
whole seconds of every camera are decided again; other cameras than the one that was hurt lack nothing; every second is
accounted for once, each start has one end or retraction, no entry of the log is missing, rows and files agree
(`store/care/invariants.py`); page and metrics name the cause of each loss, and MQTT does by the end. And at the end:
nothing that a reader was shown is gone, and a file, a webhook and an MQTT broker each got the last revision of every
event, in order.

What can go wrong, and where it is made to:

| | fault | covered by |
|---|---|---|
| 1 | camera offline at the start | "camera offline at the start", `watch/test_service.py` |
| 2 | stall, socket open | "camera stalled" |
| 3 | reset, half-open, reboot | "camera reset", "camera gone": no answer at all, and then a reset |
| 4 | flapping | "camera flapping", half a minute; not for an hour |
| 5 | trickling link | "camera trickle" |
| 6 | garbage, 401, redirect loop, endless header | "camera garbage", "camera unauthorized", … |
| 7 | damaged packets, missing key frames | "stream: packets damaged", "stream: key frames missing" |
| 8 | codec, size, rate change | "stream: another codec", "stream: another size and rate" |
| 9 | time stamps jump, wrap, go back | "stream: clock …"; without DTS: not made |
| 10 | sound vanishes, never comes, drifts | "stream: sound …" |
| 11 | microphone unplugged | `watch/test_devices.py` |
| 12 | black, frozen or missing picture, silence | "stream: black and silent", "stream: picture …" |
| 13 | more windows than the encoder can | "encoder too slow"; `watch/test_queue.py` |
| 14 | encoder raises, hangs, has no memory | `encoding/test_remote.py`, "encoder stopped", "no memory" |
| 15 | kill -9 at failpoints and at random | "service killed at …", "service killed", `--kills`; update and backup: |
| | | `store/test_database.py` |
| 16 | killed by the kernel for memory | "out of memory" |
| 17 | child gets SIGSEGV, SIGSTOP | "capture segmentation fault", "capture stopped" |
| 18 | disk full, then free | "disk full", "disk full, killed" |
| 19 | disk read-only, lost, another | "disk read-only at the start", "disk lost", "disk missing …" |
| 20 | errors of write and fsync | "disk errors of …", `store/test_damage.py` |
| 21 | store or log damaged, torn, deleted, newer, locked | `store/test_damage.py`, `store/test_database.py`, |
| | | "store's log torn", "store locked by another program" |
| 22 | clock ± 1 h, local time, 1970 | "clock …" |
| 23 | broker away, without memory, two of one name | "broker …"; `delivery/test_mqtt.py` |
| 24 | webhook 500, 429, 410, slow, TLS, no host | "webhook …"; `delivery/test_webhook.py` |
| 25 | readers that do not read, a proxy | "200 readers that do not read"; `web/test_attacks.py`, `web/test_nginx.py` |
| 26 | site file half-written, camera removed | "site file half-written …", "camera removed …" |
| 27 | no descriptors, no threads | "no file descriptors", "no threads"; `capture/test_feed.py` |
| 28 | SIGTERM during an event, twice, slow drain | "service ended and started", "service ended while all hang" |
| 29 | Ray | not made: the service uses none |
| 30 | attacks | `web/test_attacks.py`, `web/access/test_login.py`, `web/test_evidence.py` |
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if (TESTS := str(Path(__file__).parents[1])) not in sys.path:
    sys.path.insert(0, TESTS)

from support.chaos.run import ALL_FAULTS, Survived, run


def _causes(survived: Survived) -> str:
    return ", ".join(sorted({cause for _, _, cause in survived.losses})) or "none"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", action="store_true", help="every fault once, not --minutes of them by chance")
    parser.add_argument("--kills", type=int, default=0, help="kill the service so many times at random moments")
    parser.add_argument("--kind", action="append", default=[], choices=sorted(ALL_FAULTS), help="this fault")
    parsed = parser.parse_args()
    kinds = [*ALL_FAULTS] if parsed.each else [*parsed.kind, *["service killed"] * parsed.kills]
    try:
        survived = run(parsed.seed, minutes=parsed.minutes, kinds=kinds, report=lambda text: print(text, flush=True))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    faults = sum(map(len, survived.recoveries_s.values()))
    print(f"\nseed {survived.seed}: {faults} faults, {survived.restarts} restarts, {survived.events} events shown")
    print(f"{survived.evidence} pictures and clips at the end, messages {survived.delivered}")
    print(f"causes of losses, all on the page, in the metrics and at the broker: {_causes(survived)}")
    print(f"slowest end after SIGTERM: {survived.slowest_end_s:.1f} s\n")
    print("| fault | times | longest recovery, s |\n|---|---|---|")
    for kind, seconds in sorted(survived.recoveries_s.items()):
        print(f"| {kind} | {len(seconds)} | {max(seconds):.1f} |")
    for kind, why in survived.left_out.items():
        print(f"- {kind}: left out, {why}")
    for wrong in survived.wrong:
        print(f"! {wrong}")
    return bool(survived.wrong)


if __name__ == "__main__":
    raise SystemExit(main())
