// Rules E1 to E3: an event log given with a quote has to replay to the quote's RTMRs, and what its
// events say has to be what was hashed. Which form the log has is read off its first byte: `[` is
// dstack's JSON, everything else a CCEL.

import { equalBytes, toHex } from '../encoding/bytes.ts';
import type { Transcript } from '../transcript/checks.ts';
import { eventContent, eventName, parseEventLog, replayEventLog } from '../eventlog/tcg.ts';
import { TDX_RULES } from './rules.ts';
import type { TdxSubject } from './subject.ts';
import { parseRuntimeLog, replayRuntimeLog } from '../eventlog/dstack.ts';

/** Throws `malformed_event_log`; records E1 to E3 otherwise, as skips when there is no log. */
export async function checkEventLog(
  { quote: { body }, eventLog: log }: TdxSubject,
  transcript: Transcript,
): Promise<void> {
  const quoted = [body.rtmr0, body.rtmr1, body.rtmr2, body.rtmr3];
  if (log === undefined) {
    for (const rule of [TDX_RULES.eventLog, TDX_RULES.eventContent, TDX_RULES.runtimeEvents])
      transcript.skip(rule, 'no event log was given');
    return;
  }
  if (log[0] === 0x5b) {
    const { registers, contradicted, hashed } = await replayRuntimeLog(parseRuntimeLog(log));
    replayRule(transcript, registers.slice(0, 3), quoted.slice(0, 3));
    const first = contradicted[0];
    transcript.expect(
      TDX_RULES.eventContent,
      first === undefined,
      first === undefined
        ? `${hashed} runtime events are what was hashed`
        : `event ${first.index} (${JSON.stringify(first.name.slice(0, 64))}) is not what its digest says`,
    );
    const [replayed, expected] = [registers[3] ?? new Uint8Array(), quoted[3] ?? new Uint8Array()];
    transcript.expect(
      TDX_RULES.runtimeEvents,
      equalBytes(replayed, expected),
      `RTMR3 replays to ${toHex(replayed)}`,
      {
        expected: toHex(expected),
        actual: toHex(replayed),
      },
    );
    return;
  }
  const events = parseEventLog(log);
  replayRule(transcript, (await replayEventLog(events)).slice(1), quoted);
  const counts = { hashed: 0, described: 0 };
  for (const event of events) {
    const content = await eventContent(event);
    if (content === 'contradicted') {
      transcript.fail(TDX_RULES.eventContent, `${eventName(event)}: its data is not what its digest is of`, {
        actual: toHex(event.digest),
      });
      counts.hashed = -1;
      break;
    }
    counts[content] += 1;
  }
  if (counts.hashed >= 0) {
    transcript.pass(
      TDX_RULES.eventContent,
      `${counts.hashed} events say what was hashed; ${counts.described} only describe it and prove nothing by their words`,
    );
  }
  transcript.skip(TDX_RULES.runtimeEvents, 'a CCEL has no dstack runtime events');
}

function replayRule(
  transcript: Transcript,
  replayed: readonly Uint8Array[],
  quoted: readonly Uint8Array[],
): void {
  const wrong = quoted.findIndex((register, i) => !equalBytes(register, replayed[i] ?? new Uint8Array()));
  transcript.expect(
    TDX_RULES.eventLog,
    wrong < 0,
    wrong < 0
      ? `RTMR0 to RTMR${quoted.length - 1} replay to the quote`
      : `RTMR${wrong} does not replay to the quote`,
    {
      expected: toHex(quoted[wrong] ?? new Uint8Array()),
      actual: toHex(replayed[wrong] ?? new Uint8Array()),
    },
  );
}
