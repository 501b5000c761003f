/* Which scenarios are there?
 *
 * Imports stage.h. One line for each; another one is a file of its own and a line here. */
#ifndef TIDELOG_SCHEDULES_SCENARIOS_H
#define TIDELOG_SCHEDULES_SCENARIOS_H

#include "stage.h"

#define SCENARIOS(X) \
    X(append) \
    X(batches) X(first) X(roll) X(trim) X(sleep) X(sleepers) X(sync) X(offsets) X(drop) X(leave) X(enter) X(flush) \
        X(selves) X(names) X(retry) X(ids) X(window) X(growth) X(commit) \
        X(expire) X(visible) X(two) X(late) X(takeover) X(successor) X(synced) X(retaken) \
        X(heirs) X(across)

#define SCENARIO_DECLARED(name) extern const scenario scenario_##name;
SCENARIOS(SCENARIO_DECLARED)
#undef SCENARIO_DECLARED

#endif
