// A data set in each form of file that training reads gives the same rows; a damaged one is refused by row,
// and none of its text is said. Needs `make convert-oracle`.

import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { toolsFolder } from '../../../../src/workshop/python/environment.ts';
import { pythonEnvironment } from '../../../fixtures/models/convert-oracle.ts';
import { HAVE_PYTHON, MINUTES } from '../../../fixtures/workshop/python-tools.ts';

const READ = `
import csv, json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from assay_tools import data
from assay_tools.protocol import Refused
import pyarrow, pyarrow.parquet
work = Path(sys.argv[2])
rows = [{"prompt": "a", "completion": 'b,"c"'}, {"prompt": "d\\ne", "completion": "f"}]
chat = [{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}]
(work / "lines").write_text("".join(json.dumps(row) + "\\n" for row in rows))
(work / "list").write_text(json.dumps(rows, indent=1))
with open(work / "csv", "w", newline="") as file:
    writer = csv.DictWriter(file, ["prompt", "completion"])
    writer.writeheader()
    writer.writerows(rows)
pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**row, "other": 1} for row in rows]), work / "parquet")
pyarrow.parquet.write_table(pyarrow.Table.from_pylist(chat), work / "chat")
pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"canary": "canary"}]), work / "columns")
(work / "no-parquet").write_bytes(b"PAR1canaryPAR1")
(work / "no-list").write_bytes(b'[{"text":"canary"}')
(work / "no-csv").write_bytes(b'text\\n"canary')
(work / "no-object").write_bytes(b'["canary"]')
(work / "empty").write_bytes(b"text\\n")
said = {}
for path in work.iterdir():
    try:
        said[path.name] = data.read(path)
    except Refused as refused:
        said[path.name] = str(refused)
print(json.dumps(said))
`;

describe.skipIf(!HAVE_PYTHON)('files of data sets', () => {
  test(
    'lines, a list, CSV and Parquet are read alike; what is none of them is refused',
    async () => {
      const work = mkdtempSync(join(tmpdir(), 'assay-data-forms-'));
      try {
        const made = ['-I', '-B', '-c', READ, toolsFolder(), work];
        const { stdout } = await promisify(execFile)(pythonEnvironment.python, made);
        const rows = [
          { prompt: 'a', completion: 'b,"c"' },
          { prompt: 'd\ne', completion: 'f' },
        ];
        const same = ['prompt_completion', rows];
        const chat = [{ role: 'user', content: 'x' }, { role: 'assistant', content: 'y' }]; // prettier-ignore
        expect(JSON.parse(stdout)).toEqual({
          lines: same,
          list: same,
          csv: same,
          parquet: same,
          chat: ['messages', [{ messages: chat }]],
          columns: 'line 1: it has none of the columns of a data set',
          'no-parquet': 'the data set begins as Parquet and cannot be read',
          'no-list': 'the data set begins as a list and is no JSON in UTF-8',
          'no-csv': 'line 2: it is no CSV in UTF-8',
          'no-object': 'line 1: it is no object',
          empty: 'the data set has no line',
        });
        expect(stdout).not.toContain('canary"');
      } finally {
        rmSync(work, { recursive: true, force: true });
      }
    },
    MINUTES,
  );
});
