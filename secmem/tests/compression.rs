//! Templates that are kept compressed: that they come back, and that nothing of them stays on the way.

mod common;

use common::in_child;
use common::pieces::{pattern, pieces, pieces_after};
use secmem::manager::{Config, Error, Id, Manager, Modality, Template, TemplateError, Token};
use secmem::{Backend, scrub};

/// Bytes of a template's header, and of a number.
const HEADER: usize = 12;
const NUMBER: usize = 8;

fn manager(compress: bool) -> (Manager, Token) {
    let manager = Manager::new(Config::default().policy(Backend::Mlock).compress_templates(compress)).unwrap();
    let owner = manager.owner().unwrap();
    (manager, owner)
}

fn template(samples: Vec<f64>) -> Template {
    let metadata = vec![("device".to_owned(), "left".to_owned())];
    Template { modality: Modality::Iris, quality: 0.5, samples, metadata }
}

fn len(manager: &Manager, owner: &Token, id: &Id) -> usize {
    manager.info(owner, id).unwrap().len
}

/// Samples that repeat, made without leaving any of them on this stack. `bytes` says what a byte of one is, by the number of
/// the sample and the place in it.
fn samples(bytes: fn(usize, usize) -> u8) -> Vec<f64> {
    let mut samples = Vec::with_capacity(128);
    scrub::run(|| {
        for sample in 0..128 {
            samples.push(f64::from_le_bytes(std::array::from_fn(|at| bytes(sample, at))));
        }
    })
    .unwrap();
    samples
}

#[test]
fn a_template_that_is_kept_compressed_is_shorter_and_comes_back() {
    let ((manager, owner), (long, its_owner)) = (manager(true), manager(false));
    let numbers: Vec<f64> = (0..500).map(|at| f64::from(at) / 7.0).collect();

    let short = manager.keep_secure_biometric(&owner, template(numbers.clone()), None).unwrap();
    let whole = long.keep_secure_biometric(&its_owner, template(numbers.clone()), None).unwrap();

    let whole = len(&long, &its_owner, &whole);
    assert_eq!(whole, HEADER + 500 * NUMBER + 4 + "device".len() + "left".len());
    assert!(len(&manager, &owner, &short) < whole * 3 / 4);
    let read = manager.read_secure_biometric(&owner, &short, |view| {
        assert_eq!((view.modality(), view.quality()), (Modality::Iris, 0.5));
        assert_eq!(view.metadata().collect::<Vec<_>>(), [("device", "left")]);
        view.samples().collect::<Vec<_>>()
    });
    assert_eq!(read.unwrap(), numbers);
    let sum = manager.process_secure_biometric(&owner, template(numbers.clone()), |view| view.samples().sum::<f64>());
    assert_eq!(sum.unwrap(), numbers.iter().sum::<f64>());
}

#[test]
fn a_template_that_would_not_get_shorter_is_kept_as_it_is() {
    let (manager, owner) = manager(true);

    let id = manager.keep_secure_biometric(&owner, template(vec![1.0 / 3.0]), None).unwrap();

    assert_eq!(len(&manager, &owner, &id), HEADER + NUMBER + 4 + 10);
    assert_eq!(manager.read_secure_biometric(&owner, &id, |view| view.samples().sum::<f64>()).unwrap(), 1.0 / 3.0);
}

#[test]
fn limits_hold_for_what_a_template_is_and_not_for_what_it_is_compressed_to() {
    let config = Config::default().max_buffer(1000).compress_templates(true);
    let manager = Manager::new(config).unwrap();
    let owner = manager.owner().unwrap();

    let refused = manager.keep_secure_biometric(&owner, template(vec![0.0; 500]), None);

    assert!(matches!(refused, Err(Error::Size { most: 1000, .. })), "{refused:?}");
    // A block that says that it becomes more.
    let id = manager.allocate(&owner, 64, None).unwrap();
    manager.write(&owner, &id, &mut [2, 0, 0, 0, 0xE9, 3, 0, 0, 0x1F, 0, 1, 0, 255, 255, 255, 221]).unwrap();
    let damaged = manager.read_secure_biometric(&owner, &id, |_| ());
    assert!(matches!(damaged, Err(Error::Template(TemplateError::Damaged))));
}

/// The pattern in the numbers one after the other, as they stand in a template; then in their bytes by their places, as they
/// stand while they are compressed, and in the block.
#[test]
fn nothing_of_a_template_stays_of_its_compression() {
    for layout in 0..2 {
        let ended = common::in_child_with(layout, |layout| {
            let bytes: [fn(usize, usize) -> u8; 2] = [
                |sample, at| pattern(sample % 8 * NUMBER + at),
                |sample, at| if at == 7 { 0x3F } else { pattern(sample % 64) },
            ];
            let (manager, owner) = manager(true);
            let samples = samples(bytes[layout as usize]);
            assert!(samples.iter().all(|it| it.is_finite()));
            assert_eq!(pieces().is_empty(), layout == 1, "the search finds what is there");
            let template = template(samples);

            let id: Id = "kept".parse().unwrap();
            let keep = || _ = manager.keep_secure_biometric(&owner, template, Some(id.clone())).unwrap();
            let found = pieces_after(keep);

            let (at, kept) = manager.read(&owner, &id, .., |bytes| (bytes.as_ptr().addr(), bytes.len())).unwrap();
            assert!(kept < HEADER + 128 * NUMBER, "{kept}");
            assert_eq!(found.is_empty(), layout == 0, "by their places it stands in the block");
            assert!(found.iter().all(|it| (at..at + kept).contains(it)), "{found:x?}");
            let mut within = Vec::new();
            let read = || {
                let read = manager.read_secure_biometric(&owner, &id, |view| {
                    assert_eq!(view.samples().len(), 128);
                    within = pieces();
                });
                read.unwrap();
            };
            assert!(pieces_after(read).iter().all(|it| (at..at + kept).contains(it)));
            let outside = within.iter().filter(|it| !(at..at + kept).contains(it)).count();
            // Who reads it has it in one piece; what stood by its places is gone by then.
            assert_eq!(outside > 40, layout == 0, "the search finds what is there: {within:x?}");
            assert!(layout == 0 || outside == 0, "{within:x?}");
            manager.deallocate(&owner, &id).unwrap();
            assert_eq!(pieces(), Vec::<usize>::new());
        });
        assert!(ended.status.success(), "{ended:?}");
    }
}

#[test]
fn an_operation_that_panics_leaves_nothing_of_what_was_expanded() {
    let ended = in_child(|| {
        let (manager, owner) = manager(true);
        let template = template(samples(|sample, at| pattern(sample % 8 * NUMBER + at)));

        let refused = manager.process_secure_biometric(&owner, template, |_| -> () {
            assert!(!pieces().is_empty(), "the search finds what is there");
            panic!("on purpose");
        });

        assert!(matches!(refused, Err(Error::Panicked)));
        assert_eq!((pieces(), manager.statistics().live), (Vec::new(), 0));
    });
    assert!(ended.status.success(), "{ended:?}");
}
