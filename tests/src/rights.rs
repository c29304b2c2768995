/// What the documentation says a user needs: this line of it is what the whole suite runs with.
const DOCUMENTED: &str = include_str!("../../docs/security.md");

/// The words of `ACL SETUSER` that give a user the least rights with which everything works in a namespace, or in all of
/// them with `*`.
///
/// ```
/// let words = nearfar_tests::least_rights("app", "secret", "users");
/// assert_eq!(words[..5], ["ACL", "SETUSER", "app", "on", ">secret"]);
/// assert!(words.contains(&"~{users.0}*".to_owned()));
/// ```
pub fn least_rights(user: &str, password: &str, namespace: &str) -> Vec<String> {
    words(0, user, password, namespace)
}

/// The same on a cluster.
///
/// ```
/// let words = nearfar_tests::least_rights_on_cluster("app", "secret", "users");
/// assert!(words.contains(&"+ssubscribe".to_owned()));
/// ```
pub fn least_rights_on_cluster(user: &str, password: &str, namespace: &str) -> Vec<String> {
    words(1, user, password, namespace)
}

fn words(line: usize, user: &str, password: &str, namespace: &str) -> Vec<String> {
    let mut lines = DOCUMENTED.lines().filter(|line| line.starts_with("ACL SETUSER "));
    let line = lines.nth(line).expect("the line is there");
    let word = |word: &str| match word {
        "nearfar" => user.to_owned(),
        ">PASSWORD" => format!(">{password}"),
        pattern => pattern.replace("users", namespace),
    };
    line.split_whitespace().map(word).collect()
}
