//! The journal: kept in order, read in pages, forgotten from the oldest end.

use clawd_protocol::record::{Chapter, EventPage, EventRecord, Role};
use clawd_protocol::{Answer, Change, Question, Unix};
use clawd_runtime_mio::store::Store;

use super::{Home, id, put, session};

fn event(seq: u64) -> EventRecord {
    EventRecord {
        seq,
        at: Unix::from_millis(seq * 1000),
        least_role: Role::Read,
        session: None,
        text: format!("{seq:>10}"),
    }
}

fn put_events(store: &mut Store, seqs: impl IntoIterator<Item = u64>) {
    put(store, seqs.into_iter().map(|seq| Change::PutEvent(event(seq))).collect());
}

fn page(store: &mut Store, after: u64, through: u64, limit: usize, bytes_max: usize) -> EventPage {
    let question = Question::Events { after, through, limit, bytes_max };
    let answer = store.answer(&question);
    let Answer::Events(page) = answer else { panic!("{answer:?}") };
    page
}

fn seqs(page: &EventPage) -> Vec<u64> {
    page.events.iter().map(|event| event.seq).collect()
}

fn all(store: &mut Store) -> (u64, Vec<u64>) {
    let page = page(store, 0, 1_000_000, 1_000_000, usize::MAX);
    (page.forgotten, seqs(&page))
}

fn prune(store: &mut Store, before: u64, count_max: usize, bytes_max: usize) {
    let before = Unix::from_millis(before * 1000);
    put(store, vec![Change::PruneEvents { before, count_max, bytes_max }]);
}

#[test]
fn events_survive_a_restart_word_for_word() {
    let home = Home::new();
    let (dir, mut store, _) = home.start();
    let text = "{\"text\":\"\u{0}🦀\\u001b\"}".to_owned();
    let told = EventRecord {
        seq: 4,
        at: Unix::from_millis(9),
        least_role: Role::Admin,
        session: Some(id(1)),
        text,
    };
    put(&mut store, vec![Change::PutSession(session(1)), Change::PutEvent(told.clone())]);
    drop((dir, store));
    let (_dir, mut store, _) = home.start();
    let found = page(&mut store, 0, 9, 9, usize::MAX);
    assert_eq!(found, EventPage { forgotten: 0, events: vec![told] });
}

#[test]
fn pages_are_bounded_by_number_count_and_bytes() {
    let home = Home::new();
    let (_dir, mut store, _) = home.start();
    put_events(&mut store, [1, 2, 5, 6, 7]);
    for ((after, through, limit, bytes_max), wanted) in [
        ((0, 9, 9, 1000), vec![1, 2, 5, 6, 7]),
        ((2, 6, 9, 1000), vec![5, 6]),
        ((0, 9, 2, 1000), vec![1, 2]),
        ((0, 9, 9, 29), vec![1, 2]),
        ((0, 9, 9, 30), vec![1, 2, 5]),
        ((0, 9, 9, 0), vec![1]),
        ((7, 9, 9, 1000), vec![]),
    ] {
        let found = page(&mut store, after, through, limit, bytes_max);
        assert_eq!(seqs(&found), wanted, "{after} {through} {limit} {bytes_max}");
    }
}

#[test]
fn events_go_with_their_session() {
    let home = Home::new();
    let (_dir, mut store, _) = home.start();
    let of = |seq, number| EventRecord { session: Some(id(number)), ..event(seq) };
    put(&mut store, vec![Change::PutSession(session(1)), Change::PutSession(session(2))]);
    put(
        &mut store,
        vec![
            Change::PutEvent(of(1, 1)),
            Change::PutEvent(of(2, 2)),
            Change::PutEvent(of(3, 1)),
            Change::PutEvent(event(4)),
        ],
    );
    put(&mut store, vec![Change::DeleteSession(id(1)), Change::PutEvent(event(5))]);
    assert_eq!(all(&mut store), (0, vec![2, 4, 5]), "that is no forgetting: it was wanted");
}

#[test]
fn the_oldest_are_forgotten_by_age_by_count_and_by_bytes() {
    for (before, count_max, bytes_max, wanted) in [
        (0, 100, 1000, (0, vec![1, 3, 4, 8, 9])),
        (4, 100, 1000, (3, vec![4, 8, 9])),
        (5, 100, 1000, (7, vec![8, 9])),
        (0, 3, 1000, (3, vec![4, 8, 9])),
        (0, 100, 29, (7, vec![8, 9])),
        (0, 100, 30, (3, vec![4, 8, 9])),
        (99, 100, 1000, (9, vec![])),
        (0, 0, 1000, (9, vec![])),
        (0, 100, 0, (9, vec![])),
    ] {
        let home = Home::new();
        let (dir, mut store, _) = home.start();
        put_events(&mut store, [1, 3, 4, 8, 9]);
        prune(&mut store, before, count_max, bytes_max);
        assert_eq!(all(&mut store), wanted, "{before} {count_max} {bytes_max}");
        drop((dir, store));
        let (_dir, mut store, _) = home.start();
        assert_eq!(all(&mut store), wanted, "after a restart");
        // What comes then is counted as before.
        put_events(&mut store, [10, 11, 12]);
        prune(&mut store, 0, 2, 1000);
        assert_eq!(all(&mut store), (10, vec![11, 12]));
        prune(&mut store, 0, 2, 1000);
        assert_eq!(all(&mut store), (10, vec![11, 12]), "nothing more to forget");
    }
}

#[test]
fn the_last_chapters_are_kept_in_order() {
    let home = Home::new();
    for life in 0..5_u64 {
        let (_dir, mut store, found) = home.start();
        let ids: Vec<_> = found.chapters.iter().map(|chapter| chapter.id.clone()).collect();
        let wanted: Vec<_> = (life.saturating_sub(3)..life).map(|n| format!("life {n}")).collect();
        assert_eq!(ids, wanted);
        let chapter = Chapter { id: format!("life {life}"), start: life * 10 };
        put(&mut store, vec![Change::BeginChapter { chapter, count_max: 3 }]);
    }
    let (_dir, _store, found) = home.start();
    assert_eq!(found.chapters.last().map(|chapter| chapter.start), Some(40));
}
