// Rules E1 to E3: an event log given with a quote has to replay to the quote's RTMRs, and what its events say has to be what
// was hashed. Which form the log has is read off its first byte: `[` is dstack's JSON, everything else a CCEL.

import { equalBytes, toHex } from '../encoding/bytes.ts';
import type { Transcript } from '../transcript/checks.ts';
import { eventContent, eventName, parseEventLog, replayEventLog } from '../eventlog/tcg.ts';
import type { TdBody } from './quote.ts';
import { TDX_RULES } from './rules.ts';
import { parseRuntimeLog, replayRuntimeLog } from '../eventlog/dstack.ts';

/** Throws `malformed_event_log`; records E1 to E3 otherwise, as skips when there is no log. */
export async function eventLogRules(
  t: Transcript,
  body: Pick<TdBody, 'rtmr0' | 'rtmr1' | 'rtmr2' | 'rtmr3'>,
  log: Uint8Array | undefined,
): Promise<void> {
  const R = TDX_RULES;
  const quoted = [body.rtmr0, body.rtmr1, body.rtmr2, body.rtmr3];
  if (log === undefined) {
    for (const rule of [R.eventLog, R.eventContent, R.runtimeEvents]) t.skip(rule, 'no event log was given');
    return;
  }
  if (log[0] === 0x5b) {
    const { registers, contradicted, hashed } = await replayRuntimeLog(parseRuntimeLog(log));
    replayRule(t, registers.slice(0, 3), quoted.slice(0, 3));
    const first = contradicted[0];
    t.expect(
      R.eventContent,
      first === undefined,
      first === undefined
        ? `${hashed} runtime events are what was hashed`
        : `event ${first.index} (${JSON.stringify(first.name.slice(0, 64))}) is not what its digest says`,
    );
    const [replayed, expected] = [registers[3] ?? new Uint8Array(), quoted[3] ?? new Uint8Array()];
    t.expect(R.runtimeEvents, equalBytes(replayed, expected), `RTMR3 replays to ${toHex(replayed)}`, {
      expected: toHex(expected),
      actual: toHex(replayed),
    });
    return;
  }
  const events = parseEventLog(log);
  replayRule(t, (await replayEventLog(events)).slice(1), quoted);
  const counts = { hashed: 0, described: 0 };
  for (const event of events) {
    const content = await eventContent(event);
    if (content === 'contradicted') {
      t.fail(R.eventContent, `${eventName(event)}: its data is not what its digest is of`, {
        actual: toHex(event.digest),
      });
      counts.hashed = -1;
      break;
    }
    counts[content] += 1;
  }
  if (counts.hashed >= 0) {
    t.pass(
      R.eventContent,
      `${counts.hashed} events say what was hashed; ${counts.described} only describe it and prove nothing by their words`,
    );
  }
  t.skip(R.runtimeEvents, 'a CCEL has no dstack runtime events');
}

function replayRule(t: Transcript, replayed: readonly Uint8Array[], quoted: readonly Uint8Array[]): void {
  const wrong = quoted.findIndex((register, i) => !equalBytes(register, replayed[i] ?? new Uint8Array()));
  t.expect(
    TDX_RULES.eventLog,
    wrong < 0,
    wrong < 0
      ? `RTMR0 to RTMR${quoted.length - 1} replay to the quote`
      : `RTMR${wrong} does not replay to the quote`,
    wrong < 0
      ? {}
      : {
          expected: toHex(quoted[wrong] ?? new Uint8Array()),
          actual: toHex(replayed[wrong] ?? new Uint8Array()),
        },
  );
}
