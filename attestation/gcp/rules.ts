// The rules on Google's launch endorsement of its guest firmware, as data.

import { rule, type Rule } from '../transcript/checks.ts';

const GCE = 'GCE TCB launch endorsement (VMLaunchEndorsement)';

export const GCE_RULES = {
  form: rule('G1', 'gce_endorsement_form', GCE, 'endorsement has its fields, each once, and none unsigned'),
  certificate: rule(
    'G2',
    'gce_endorsement_certificate',
    GCE,
    'signing certificate is issued by the pinned GCE root and valid now',
  ),
  signature: rule(
    'G3',
    'gce_endorsement_signature',
    'RFC 8017 §8.1',
    'endorsement is signed with RSASSA-PSS, SHA-256, salt of 32 bytes',
  ),
  measurement: rule(
    'G4',
    'gce_endorsement_measurement',
    GCE,
    'measured firmware is one the endorsement lists',
  ),
  memory: rule('G5', 'gce_endorsement_ram', 'appraisal policy', 'endorsement is for the memory required'),
} as const satisfies Record<string, Rule>;
