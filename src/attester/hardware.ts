// Reports of real hardware: configfs-tsm behind the ReportSource seam, with endorsements
// stapled when there are any.

import { readFile } from 'node:fs/promises';
import type { Report, ReportSource } from './assemble.ts';
import { endorsementsOf, parseCertificateTable } from './certtable.ts';
import type { Stapling } from './endorsements.ts';
import { TsmError, type Tsm, type TsmProvider } from '../attestd/tsm.ts';

export interface HardwareSourceOptions {
  readonly tsm: Tsm;
  readonly provider: TsmProvider;
  readonly endorsements: Stapling;
  /** TDX event log; `/sys/firmware/acpi/tables/data/CCEL`. */
  readonly eventLogPath: string;
}

const MAX_EVENT_LOG_BYTES = 512 * 1024;

export function createHardwareSource(options: HardwareSourceOptions): ReportSource {
  const { tsm, endorsements } = options;
  const teeType = options.provider === 'sev_guest' ? 'sev-snp' : 'tdx';
  return {
    teeType,
    get available() {
      return tsm.available;
    },
    async report(reportData, signal): Promise<Report> {
      const { outblob, auxblob } = await tsm.report(reportData, signal);
      if (teeType === 'tdx')
        return {
          ...tdxFields(outblob),
          ...(await eventLog(options.eventLogPath)),
          ...endorsements.current(outblob),
        };
      if (outblob.length < 0x90 + 48)
        throw new TsmError('malformed', `the report is ${outblob.length} bytes`);
      const table = parseCertificateTable(auxblob);
      const fromHost = table === undefined ? undefined : endorsementsOf(table);
      // AMD 56860 rev. 1.58 §7.3: MEASUREMENT.
      return {
        report: outblob,
        measurement: outblob.slice(0x90, 0x90 + 48),
        ...endorsements.current(outblob, fromHost),
      };
    },
    endorsementsExpireAt: () => endorsements.expireAt(),
    endorsementsError: () => endorsements.error(),
    close: () => endorsements.close(),
  };
}

/** MRTD and RTMR0–3 of a quote (Intel TDX DCAP quote format, TD report body 1.0: offsets 136 and 328). */
export function tdxFields(
  quote: Uint8Array,
): Pick<Report, 'report' | 'measurement' | 'rtmr'> & { readonly rtmr: readonly Uint8Array[] } {
  const body = 48 + (quote[0] === 5 ? 6 : 0);
  if (quote.length < body + 584) throw new TsmError('malformed', `the quote is ${quote.length} bytes`);
  const at = (offset: number): Uint8Array => quote.slice(body + offset, body + offset + 48);
  return { report: quote, measurement: at(136), rtmr: [at(328), at(376), at(424), at(472)] };
}

/** Absent on machines whose firmware keeps no log; a verifier that needs one refuses. */
async function eventLog(path: string): Promise<Pick<Report, 'eventLog'>> {
  try {
    const bytes = await readFile(path);
    return bytes.length > MAX_EVENT_LOG_BYTES ? {} : { eventLog: new Uint8Array(bytes) };
  } catch {
    return {};
  }
}
