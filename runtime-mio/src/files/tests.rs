use std::sync::Barrier;
use std::thread;

use super::*;

#[test]
fn a2_two_starters_agree_on_one_token() {
    for _ in 0..50 {
        let home = tempfile::tempdir().unwrap();
        let dir = PrivateDir::open_or_make(&home.path().join("clawd")).unwrap();
        let barrier = Barrier::new(4);
        let tokens: Vec<Secret> = thread::scope(|scope| {
            let starters: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        load_or_make_token(&dir).unwrap()
                    })
                })
                .collect();
            starters.into_iter().map(|starter| starter.join().unwrap()).collect()
        });
        assert!(tokens.windows(2).all(|pair| pair[0] == pair[1]));
        let files = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files, 1, "nothing is left beside the token");
    }
}

#[test]
fn a2_what_a_crash_left_is_swept_by_the_next_holder() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("clawd");
    let dir = PrivateDir::open_or_make(&path).unwrap();
    std::mem::forget(stage_token(&dir, &mint_local([1; 32])).unwrap());
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);
    let _held = DataDir::open(&path).unwrap();
    let left: Vec<_> = std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["clawd.lock"]);
}

#[test]
fn a_path_is_quoted_for_the_shell() {
    assert_eq!(private::quoted(Path::new("/a/b-c.d")), "/a/b-c.d");
    assert_eq!(private::quoted(Path::new("/a b/c'd")), r"'/a b/c'\''d'");
}
