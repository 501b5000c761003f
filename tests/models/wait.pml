/* Does every sleeper learn of every message? SHARING rule 19; native/src/wait.c, append.c (unlock_and_wake), gate.c.
 *
 * Process 0 sleeps, process 1 publishes, process 2 comes in meanwhile and publishes too, a message each. A plain store may
 * reach the others late (`is_late`), as on x86; a compare-and-swap, an exchange or a fence lets it through first. A wait
 * ends by time only after a death, when nobody is left who could wake: as long as everybody lives, wakes must do. */
#define RUNNING 2
#define NEWCOMERS 0
#ifndef THREADS
#define THREADS 1 /* of process 0 that sleep */
#endif
#include "processes.inc"

byte owner, tail;                 /* hot->lock, hot->tail */
bool is_late[PROCESSES];          /* its store of the tail is on the way */
bool unlock_is_late[PROCESSES];   /* and the one that frees the lock behind it */
bool sleeps, sleeps_is_late;      /* hot->sleepers: the bit of process 0 */
byte word, sleeping;              /* process->word, process->sleeping, of process 0 */
bool asleep[2], is_long[2];       /* in futex_wait; for a second instead of 100 ms, since nobody else is in the store */
bool inside[PROCESSES], has_come; /* process->inside; process 2 has bumped every word */
#define ALL_SAID (NOBODY_RUNS && !is_late[1] && !is_late[2])
#define has_died(whose) (incarnation[owner_slot(whose)] != whose / 4 || !holds_byte[owner_slot(whose)])

/* What a barrier does at once and the processor some time. */
inline let_through(who) {
    tail++;
    is_late[who] = false;
#ifdef BUG_NO_BARRIER_BEFORE_SLEEPERS
    if :: unlock_is_late[who] -> owner = 0; unlock_is_late[who] = false :: else fi
#endif
}

active proctype Buffers() {
    do
    :: atomic { is_late[1] -> let_through(1) }
    :: atomic { is_late[2] -> let_through(2) }
#ifdef BUG_NO_BARRIER_OF_SLEEPER
    :: atomic { sleeps_is_late -> sleeps = true; sleeps_is_late = false }
#endif
    :: atomic { NOBODY_RUNS && !is_late[1] && !is_late[2] && !sleeps_is_late -> break }
    od
}

inline wake_process() { /* wait.c:wake_process */
    word++;
    if
    :: sleeping > 0 -> atomic { asleep[0] = false; asleep[1] = false; is_long[0] = false; is_long[1] = false } /* futex_wake */
    :: sleeping == 0
    fi
}

inline publish() {
    atomic { owner == 0 || has_died(owner) -> owner = owner_make(me); assert(!is_late[me]) }; /* lock.pml */
    is_late[me] = true; /* the store of the tail in publishing.h:tl_append_publish */
#ifdef BUG_NO_BARRIER_BEFORE_SLEEPERS
    atomic { if :: is_late[me] -> unlock_is_late[me] = true :: else -> owner = 0 fi };
#else
    atomic { if :: is_late[me] -> let_through(me) :: else fi; owner = 0 }; /* lock.h:tl_lock_release */
#endif
    if
    :: atomic { sleeps -> sleeps = false }; reached(1); wake_process() /* wait.c:tl_partition_wake_sleepers */
    :: !sleeps
    fi
}

proctype Publisher(byte me) {
    {
        take_slot();
        inside[me] = true;
        if
        :: me == 2 -> wake_process(); /* gate.c:tl_gate_take_slot: whoever thought itself alone looks again */
            atomic { has_come = true; assert(!is_long[0] && !is_long[1]) }
        :: me == 1
        fi;
        publish()
    } unless { dead[me] };
    atomic { holds_byte[me] = false; inside[me] = false; running-- }
}

proctype Sleeper(byte me) {
    byte seen, value;
    bool alone;
    do
    :: seen = tail;
       if :: ALL_SAID && seen == tail -> break :: else fi;
       do /* wait.c:tl_store_wait */
       ::
#ifndef BUG_VALUE_AFTER_BITS
           value = word;
#endif
#ifdef BUG_TAIL_READ_BEFORE_BITS
           if :: tail != seen -> break :: tail == seen fi;
#endif
#ifdef BUG_NO_BARRIER_OF_SLEEPER
           if :: !sleeps -> sleeps_is_late = true :: sleeps fi;
#else
           if :: !sleeps -> sleeps = true :: sleeps fi; /* a look and an exchange, then the fence */
#endif
#ifndef BUG_TAIL_READ_BEFORE_BITS
           if :: tail != seen -> break :: tail == seen fi;
#endif
#ifdef BUG_VALUE_AFTER_BITS
           value = word;
#endif
           sleeping++;
           alone = !inside[1]; /* is_alone, one slot after the other */
           alone = alone && !inside[2];
           atomic { if :: word == value -> asleep[me] = true; is_long[me] = alone; assert(!has_come || !inside[2] || !alone)
                       :: else -> reached(2) fi };
           if
           :: !asleep[me]
           :: atomic { asleep[me] && NOBODY_RUNS && crashes > 0 && seen != tail -> /* -ETIMEDOUT */
                  asleep[me] = false; is_long[me] = false; reached(3) }
           :: atomic { asleep[me] && ALL_SAID && seen == tail -> /* nothing more comes */
                  asleep[me] = false; is_long[me] = false; reached(4) }
           fi;
           atomic { sleeping--; value = 0; alone = false };
           if :: ALL_SAID && seen == tail -> goto done :: else fi
       od
    od;
done:
    skip
}

init { atomic { run Publisher(1); run Publisher(2); run Sleeper(0);
#if THREADS == 2
    run Sleeper(1)
#endif
   } }
