import { startRealServer } from '/work/wt/auditr/test/fixtures/e2e/real-server.ts';
const s = await startRealServer({ dataFolder: '/tmp/auditr-live', env: { ASSAY_AUDIT_ENABLED: 'true', ASSAY_AUDIT_FOLDER: '/tmp/auditr-live' } });
console.log(s.url, s.process.pid, s.policyPath);
process.on('SIGTERM', async () => { await s.stop(); process.exit(0); });
setInterval(() => {}, 1e6);
