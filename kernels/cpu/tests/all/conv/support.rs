//! Parts that algorithms share: register tiles, taps and indirection buffers.

use paretune_base::plan::operator::{ConvProblem, Window};
use paretune_cpu::testing::{
    Extent, IndirectionBuffer, MAX_ROWS, MAX_VECTORS, Tile, balanced, by_tap, most_vectors,
    offered, tile_tunable, useful,
};
use paretune_simd::Isa;

#[test]
fn balanced_tiles_cover_all_rows() {
    for total in 0..50 {
        for rows in 1..=MAX_ROWS {
            let parts = balanced(total, rows);
            assert_eq!(parts.iter().map(|(rows, count)| rows * count).sum::<usize>(), total);
            assert!(parts.iter().all(|&(r, count)| count == 0 || (1..=rows).contains(&r)));
        }
    }
}

#[test]
fn offered_tiles_are_compiled_and_so_is_all_that_is_smaller() {
    for isa in Isa::ALL {
        for rows in 1..=MAX_ROWS {
            assert!(most_vectors(isa, rows + 1) <= most_vectors(isa, rows));
            assert!(most_vectors(isa, rows) <= MAX_VECTORS);
        }
        for &(rows, vectors) in offered(isa) {
            assert!(vectors <= most_vectors(isa, rows), "{isa:?} {rows}x{vectors}");
            let tile = Tile { rows, vectors };
            assert_eq!(Tile::of_sides(tile.sides(isa), isa), Some(tile));
        }
    }
}

#[test]
fn tunables_suit_the_problem() {
    for (rows, columns) in [(1, 10), (1, 512), (16, 512), (1024, 64), (7, 3)] {
        for isa in Isa::ALL {
            let [first, second] = tile_tunable(Extent { rows, columns }, isa);
            assert!(first.values().contains(&first.default));
            for side in first.values() {
                let chosen = [(first.name.to_owned(), side)].into();
                for other in second.values_beside(&chosen) {
                    let sides = [side, other].map(|value| value.size().unwrap() as usize);
                    assert!(Tile::of_sides(sides, isa).unwrap().rows <= rows);
                }
            }
        }
    }
}

#[test]
fn taps_in_padding_are_left_out() {
    let window = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], padding: [1; 4] };
    let problem =
        ConvProblem { batch: 1, in_channels: 1, out_channels: 1, groups: 1, input: [2, 4], window };
    let taps = by_tap(&problem, [2, 4]).unwrap();
    let products: usize = taps.iter().map(|tap| tap.within[0].len() * tap.within[1].len()).sum();
    assert_eq!(products, 4 * 10);
    assert!((useful(&problem, [2, 4]) - 40.0 / 72.0).abs() < 1e-12);
    assert_eq!(taps.last().map(|tap| tap.number), Some(4));
    let point = ConvProblem { input: [1, 1], ..problem };
    assert_eq!(by_tap(&point, [1, 1]).unwrap().len(), 1);
    let window = Window { padding: [0; 4], ..window };
    assert!(by_tap(&ConvProblem { input: [5, 5], window, ..problem }, [3, 3]).is_none());
}

#[test]
fn padding_is_found_on_every_side() {
    let window = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], padding: [1, 1, 1, 1] };
    let problem =
        ConvProblem { batch: 2, in_channels: 2, out_channels: 1, groups: 1, input: [2, 3], window };
    let rows = IndirectionBuffer::taps(&problem, [2, 3]);
    let view = rows.view();
    let input: Vec<u32> = (0..24).collect();
    let zeros = [u32::MAX; 2];
    let mut pixel = view.pixel(0);
    for image in 0..2 {
        for y in 0..2_usize {
            for x in 0..3_usize {
                // SAFETY: the tables live, the pixel exists and the input has the problem's
                // size.
                let read = |ky, kx| unsafe {
                    *view.site(pixel).run(ky, kx, input.as_ptr(), zeros.as_ptr())
                };
                for ky in 0..3 {
                    for kx in 0..3 {
                        let inside = (1..3).contains(&(y + ky)) && (1..4).contains(&(x + kx));
                        let want = if inside {
                            (((image * 2 + y + ky - 1) * 3 + x + kx - 1) * 2) as u32
                        } else {
                            u32::MAX
                        };
                        assert_eq!(read(ky, kx), want, "image {image} pixel {y},{x} tap {ky},{kx}");
                    }
                }
                pixel = view.next(pixel);
            }
        }
    }
}
