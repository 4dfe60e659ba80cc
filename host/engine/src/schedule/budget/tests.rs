use futures_util::FutureExt;

use super::*;

const MIB: u64 = 1 << 20;

fn budget() -> Budget {
    Budget::new(256 * MIB)
}

fn used(budget: &Budget) -> u64 {
    budget.usage().used.iter().map(|(_, bytes)| bytes).sum()
}

#[tokio::test]
async fn what_is_reserved_is_given_back_however_it_is_dropped() {
    let budget = budget();
    let most = budget.most(MemoryUse::Attempts);
    let all = budget.try_reserve(MemoryUse::Attempts, most).unwrap();
    assert!(budget.try_reserve(MemoryUse::Attempts, 1).is_none());
    {
        let mut waiting = Box::pin(budget.reserve(MemoryUse::Attempts, MIB));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(budget.usage().waiting, 1);
    }
    assert_eq!((budget.usage().waiting, used(&budget)), (0, most));
    {
        // Granted, and dropped before it was received.
        let mut waiting = Box::pin(budget.reserve(MemoryUse::Attempts, MIB));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(all);
        assert_eq!(used(&budget), MIB);
    }
    assert_eq!(used(&budget), 0);
}

#[tokio::test]
async fn an_account_asks_only_for_what_is_not_reserved() {
    let budget = budget();
    let handle = AttemptHandle::new();
    let asker = Asker { budget: &budget, handle: &handle };
    let mut account = Account::new(MemoryUse::Attempts, 3 * MIB, MIB);
    assert!(account.fits(2 * MIB) && !account.fits(1));
    assert_eq!(used(&budget), 0, "whoever started it has reserved that");
    account.add(asker, 5 * MIB).await.unwrap();
    assert_eq!((account.peak(), used(&budget)), (8 * MIB, 5 * MIB));
    account.subtract(4 * MIB);
    account.add_present(asker, 4 * MIB).await.unwrap();
    assert_eq!(used(&budget), 5 * MIB, "what it had reserved is used again");
    assert_eq!(account.add(asker, 300 * MIB).await, Err(TooMuch));
    assert_eq!(account.peak(), 308 * MIB, "what it asked for counts");
    drop(account);
    assert_eq!(used(&budget), 0);
}

#[tokio::test]
async fn where_all_wait_for_one_another_the_youngest_is_stopped_and_the_others_go_on() {
    let budget = budget();
    let most = budget.most(MemoryUse::Attempts);
    let grow = |handle: AttemptHandle| {
        let budget = budget.clone();
        async move {
            let asker = Asker { budget: &budget, handle: &handle };
            let mut account = Account::new(MemoryUse::Attempts, 0, 0);
            account.add(asker, most / 3).await.unwrap();
            tokio::task::yield_now().await;
            tokio::select! {
                grown = account.add(asker, most / 3) => grown.is_ok(),
                () = handle.end_or_cancel_requested() => false,
            }
        }
    };
    let handles = [AttemptHandle::new(), AttemptHandle::new(), AttemptHandle::new()];
    let [first, second, third] = handles.clone().map(|handle| tokio::spawn(grow(handle)));
    assert!(first.await.unwrap() && second.await.unwrap());
    assert!(!third.await.unwrap(), "the youngest made room");
    assert!(handles[2].end_reason().is_some() && handles[0].end_reason().is_none());
    let usage = budget.usage();
    assert_eq!((usage.released, usage.waiting, used(&budget)), (1, 0, 0));
}

#[tokio::test]
async fn one_that_waits_for_a_sleeper_presses_and_a_watcher_hears_of_room() {
    let budget = budget();
    let most = budget.most(MemoryUse::Attempts);
    budget.exchange(&[], &[(MemoryUse::Attempts, most)], (0, 0));
    let waiting = tokio::spawn({
        let budget = budget.clone();
        async move { budget.reserve(MemoryUse::Attempts, MIB).await.bytes() }
    });
    budget.changed().await;
    assert!(budget.take_pressing() && !budget.take_pressing());
    budget.watch();
    budget.exchange(&[(MemoryUse::Attempts, most)], &[], (0, 0));
    budget.changed().await;
    assert_eq!(waiting.await.unwrap(), MIB);
}

#[tokio::test]
async fn a_request_that_may_only_wait_for_so_long_gives_up() {
    let budget = budget();
    let _all = budget.reserve_anyway(MemoryUse::Requests, budget.most(MemoryUse::Requests));
    let wait = Duration::from_millis(10);
    assert!(budget.reserve_within(MemoryUse::Requests, MIB, wait).await.is_none());
    assert_eq!(budget.usage().waiting, 0);
    assert_eq!(budget.reserve_within(MemoryUse::Readers, 900 * MIB, wait).await.unwrap().bytes(), 64 * MIB);
}

#[tokio::test]
async fn of_many_that_hold_what_has_no_room_only_some_wait() {
    let budget = budget();
    let _all = budget.reserve_anyway(MemoryUse::Attempts, budget.most(MemoryUse::Attempts));
    let handles: Vec<AttemptHandle> = (0..4).map(|_| AttemptHandle::new()).collect();
    let mut accounts: Vec<Account> = handles.iter().map(|_| Account::new(MemoryUse::Attempts, 0, 0)).collect();
    let mut waiting: Vec<_> = accounts
        .iter_mut()
        .zip(&handles)
        .map(|(account, handle)| Box::pin(account.add_present(Asker { budget: &budget, handle }, 20 * MIB)))
        .collect();
    for wait in &mut waiting {
        assert!(wait.as_mut().now_or_never().is_none());
    }
    let stopped: Vec<bool> = handles.iter().map(|handle| handle.end_reason().is_some()).collect();
    assert_eq!(stopped, [false, true, true, true], "an eighth of the budget may be there without room, and one always");
}
