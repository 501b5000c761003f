/* Does a lock keep processes apart, wake whoever waits, and get repaired after every death? SHARING rules 8 and 9;
 * native/src/lock.c, store.c, gate.c.
 *
 * What it guards is a word that is `half` done between two steps. A time-out of a wait comes only after a death: as long
 * as everybody lives, wakes must do. Writes of what a lock guards in the log: append.pml. */
#define RUNNING 3
#include "processes.inc"
#define ROUNDS 1
#define WAITERS 16
#define NOBODY 12 /* TL_LOCK_NOBODY: no process has this slot */

byte word;               /* the lock */
bool asleep[PROCESSES];  /* in futex_wait on `word` */
bool half;               /* what the lock guards */
byte inside, failures;   /* who is in there, for the assertions; repairs that failed */

inline wake_one() { /* lock.c:tl_lock_wake */
    atomic {
        if
        :: asleep[0] -> asleep[0] = false
        :: asleep[1] -> asleep[1] = false
        :: asleep[2] -> asleep[2] = false
        :: !asleep[0] && !asleep[1] && !asleep[2]
        fi;
        waited = false
    }
}

/* In the step that takes the lock: nobody who lives has it. */
inline enter() { taken = true; assert(inside == 0 || dead[inside - 1]); inside = me + 1 }

inline take_from_dead() { /* lock.c:take_from_dead */
    seen = word;
    if
    :: seen % WAITERS == 0 -> seen = 0
    :: else ->
        ask_alive(seen % WAITERS, living);
#ifdef BUG_STOPPED_OWNER_ROBBED
        living = false;
#endif
        atomic {
            if :: !living && word == seen -> word = own + WAITERS; over = true; enter() :: else fi;
            living = false; seen = 0
        }
    fi
}

inline take() { /* lock.c:tl_lock_take, take_if_free; a compare-and-swap that fails leads back to the loop */
    do
    :: taken -> break
    :: atomic { !taken && word % WAITERS == 0 ->
#ifdef BUG_WAITERS_BIT_LOST
           word = own;
#else
           if :: waited || word >= WAITERS -> word = own + WAITERS :: else -> word = own fi;
#endif
           enter() }
    :: atomic { !taken && word % WAITERS != 0 && word < WAITERS -> word = word + WAITERS }
    :: atomic { !taken && word % WAITERS != 0 && word >= WAITERS -> asleep[me] = true; waited = true }; /* futex_wait */
       if
       :: !asleep[me]
       :: atomic { crashes > 0 && asleep[me] -> asleep[me] = false; reached(1) }; take_from_dead() /* -ETIMEDOUT */
       fi
    od
}

inline release() { /* lock.h:tl_lock_release: only what is still ours, and a wake if anybody waits */
    atomic { assert(word % WAITERS == own); taken = false; waited = word >= WAITERS; inside = 0; word = 0 };
    if :: waited -> wake_one() :: else fi
}

proctype Process(byte me) {
    byte own, seen, round;
    bool taken, over, waited, living;
    do
    :: {
           take_slot();
           own = owner_make(me);
           do
           :: round < ROUNDS ->
               take();
               if
               :: atomic { over && failures == 0 -> /* append.c:tl_partition_lock: not let go as if it were whole */
                      failures++; inside = 0; over = false; taken = false; waited = false; word = NOBODY + WAITERS; reached(2) }
               :: over -> /* whoever takes it from the dead repairs before anything else */
                   atomic { if :: half -> reached(3) :: else fi; over = false };
#ifndef BUG_NOT_REPAIRED
                   half = false;
#endif
                   release()
               :: !over -> atomic { assert(!half); half = true }; half = false; round++; release()
               fi
           :: round == ROUNDS -> break
           od;
           break
       } unless { atomic { dead[me] ->
           asleep[me] = false;
           if :: inside == me + 1 -> inside = 0 :: else fi;
           own = 0; seen = 0; round = 0; taken = false; over = false; waited = false; living = false;
           come_back() } }
    od;
    atomic { holds_byte[me] = false; running-- }
}

init { atomic { run Process(0); run Process(1); run Process(2) } }
